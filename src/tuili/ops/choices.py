"""What attributes may be: words where the standard lists them, kinds and least numbers by name."""

from __future__ import annotations

_PADDING = {"auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "")}
_ROUNDS = {"round_mode": ("up", "down", "nearest")}
_DIRECTION = {"direction": ("forward", "reverse", "bidirectional")}
_LOSS = {"reduction": ("none", "sum", "mean")}
_BLOCKS = {"mode": ("DCR", "CRD")}
_SCATTER = {"reduction": ("none", "add", "mul", "max", "min")}
_SCORES = {"post_transform": ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")}
_EXPERTS = {"activation_type": ("relu", "relu2", "gelu", "silu", "identity", "swiglu", "geglu")}
_KERNEL = {"kernel_type": ("LINEAR", "POLY", "RBF", "SIGMOID")}

# operator -> attribute -> words
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "AveragePool": _PADDING,
    "BitShift": {"direction": ("LEFT", "RIGHT")},
    "Cast": _ROUNDS,
    "CastLike": _ROUNDS,
    "CausalConvWithState": {"activation": ("none", "silu", "swish")},
    "Conv": _PADDING,
    "ConvInteger": _PADDING,
    "ConvTranspose": _PADDING,
    "DepthToSpace": _BLOCKS,
    "GRU": _DIRECTION,
    "Gelu": {"approximate": ("none", "tanh")},
    "GridSample": {
        "mode": ("linear", "nearest", "cubic"),
        "padding_mode": ("zeros", "border", "reflection"),
    },
    "LSTM": _DIRECTION,
    "LinearAttention": {"update_rule": ("linear", "gated", "delta", "gated_delta")},
    "LpPool": _PADDING,
    "MaxPool": _PADDING,
    "NegativeLogLikelihoodLoss": _LOSS,
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "QLinearConv": _PADDING,
    "RNN": _DIRECTION,
    "Resize": {
        "coordinate_transformation_mode": (
            "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
            "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize",
        ),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    },
    "RoiAlign": {
        "coordinate_transformation_mode": ("half_pixel", "output_half_pixel"),
        "mode": ("avg", "max"),
    },
    "ScatterElements": _SCATTER,
    "ScatterND": _SCATTER,
    "SoftmaxCrossEntropyLoss": _LOSS,
    "SpaceToDepth": _BLOCKS,
    "StringNormalizer": {"case_change_action": ("NONE", "LOWER", "UPPER")},
    "TensorScatter": {"mode": ("linear", "circular")},
    "TfIdfVectorizer": {"mode": ("TF", "IDF", "TFIDF")},
    "ai.onnx.ml::CastMap": {
        "cast_to": ("TO_FLOAT", "TO_STRING", "TO_INT64"),
        "map_form": ("DENSE", "SPARSE"),
    },
    "ai.onnx.ml::LinearClassifier": _SCORES,
    "ai.onnx.ml::LinearRegressor": _SCORES,
    "ai.onnx.ml::Normalizer": {"norm": ("MAX", "L1", "L2")},
    "ai.onnx.ml::SVMClassifier": {**_SCORES, **_KERNEL},
    "ai.onnx.ml::SVMRegressor": {**_SCORES, **_KERNEL},
    "ai.onnx.ml::TreeEnsembleClassifier": _SCORES,
    "ai.onnx.ml::TreeEnsembleRegressor": {
        **_SCORES,
        "aggregate_function": ("SUM", "AVERAGE", "MIN", "MAX"),
    },
    "ai.onnx.preview.training::Momentum": {"mode": ("standard", "nesterov")},
    "com.microsoft::CausalConvWithState": {"activation": ("none", "silu", "swish")},
    "com.microsoft::CropAndResize": {"mode": ("bilinear", "nearest")},
    "com.microsoft::GatedRMSNorm": {"activation": ("silu", "swish", "sigmoid")},
    "com.microsoft::GroupQueryAttention": {
        "k_quant_type": ("NONE", "PER_TENSOR", "PER_CHANNEL"),
        "v_quant_type": ("NONE", "PER_TENSOR", "PER_CHANNEL"),
    },
    "com.microsoft::LinearAttention": {"update_rule": ("linear", "gated", "delta", "gated_delta")},
    "com.microsoft::MoE": _EXPERTS,
    "com.microsoft::QMoE": _EXPERTS,
}  # fmt: skip

_WHOLE = (
    "K", "N", "axis", "block_size", "dim", "groups", "keepdims", "kv_num_heads", "max_distance",
    "ngram_size", "num_heads", "opset", "q_num_heads", "signal_ndim", "size", "sparse_block_size",
)  # fmt: skip
_WHOLES = (
    "activation_params",
    "axes",
    "dilations",
    "kernel_shape",
    "mrope_section",
    "pads",
    "pooled_shape",
    "qkv_hidden_sizes",
    "strides",
)

# The kinds of attributes of com.microsoft whose default does not show them.
KIND_OF: dict[str, type] = {
    **dict.fromkeys(_WHOLE, int),
    **dict.fromkeys(_WHOLES, tuple),
    "mask_filter_value": float,
    "scale": float,
}

# Numbers of things that there must be, unless the default says that none are given.
RANGES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("K", "N", "groups", "kv_num_heads", "num_heads", "q_num_heads"), (1, 2**31)),
    "bits": (1, 8),
}

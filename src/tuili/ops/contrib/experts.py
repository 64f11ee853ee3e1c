"""com.microsoft: mixtures of experts: each token goes through the k that its router picks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tuili.ops.activations import gelu, sigmoid
from tuili.ops.contrib.weights import unpack_bits
from tuili.ops.normalization import softmax
from tuili.ops.op import Op, op
from tuili.ops.shapes import same
from tuili.tensors import Array

# (expert, tokens) -> tokens
Layer = Callable[[int, Array], Array]


def _plain(name: str) -> Callable[[Array], Array]:
    return {
        "relu": lambda x: np.maximum(x, 0),
        "relu2": lambda x: np.square(np.maximum(x, 0)),
        "gelu": lambda x: gelu(x, "tanh"),
        "silu": lambda x: x * sigmoid(x),
        "identity": lambda x: x,
    }[name]


def _gated(gate: Array, up: Array, attrs: dict[str, Any]) -> Array:
    """SwiGLU, or GeGLU."""
    if attrs["activation_type"] == "geglu":
        return gelu(gate, "tanh") * up
    limit = np.inf if attrs["swiglu_limit"] is None else attrs["swiglu_limit"]
    up = np.clip(up, -limit, limit)
    if attrs["swiglu_limit_after_activation"]:
        gate = np.minimum(gate * sigmoid(attrs["activation_alpha"] * gate), limit)
    else:
        gate = np.minimum(gate, limit)
        gate = gate * sigmoid(attrs["activation_alpha"] * gate)
    return gate * (up + attrs["activation_beta"])


def _hidden(first: Array, third: Array | None, attrs: dict[str, Any]) -> Array:
    """What lies between the two products of an expert."""
    kind, fusion = attrs["activation_type"], attrs["swiglu_fusion"]
    if kind not in ("swiglu", "geglu"):
        y = _plain(kind)(first)
        return y if third is None else y * third
    if fusion == 0 and third is not None:
        return _gated(first, third, attrs)
    if fusion == 2:
        gate, up = np.split(first, 2, -1)
    else:
        gate, up = first[..., ::2], first[..., 1::2]
    return _gated(gate, up, attrs)


def _chosen(scores: Array, mixing: Array | None, attrs: dict[str, Any]) -> tuple[Array, Array]:
    """The experts of each token, [tokens, k], and their shares."""
    experts = np.argsort(-scores, -1, kind="stable")[:, : attrs["k"]]
    if mixing is not None:
        shares = np.take_along_axis(mixing.astype(np.float32), experts, -1)
        total = shares.sum(-1, keepdims=True)
        return experts, shares / total if attrs["normalize_routing_weights"] else shares
    if attrs["normalize_routing_weights"]:
        # Shares that are made to sum to one: a softmax over the chosen ones.
        return experts, softmax(np.take_along_axis(scores, experts, -1), -1)
    return experts, np.take_along_axis(softmax(scores, -1), experts, -1)


def _mixed(
    x: Array, scores: Array, layers: tuple[Layer, Layer, Layer | None], attrs: dict[str, Any],
    mixing: Array | None = None,
) -> Array:  # fmt: skip
    first, second, third = layers
    tokens = x.reshape(-1, x.shape[-1]).astype(np.float32)
    experts, shares = _chosen(scores.astype(np.float32), mixing, attrs)
    total = np.zeros(tokens.shape, np.float32)
    for expert in np.unique(experts):
        rows, places = np.nonzero(experts == expert)
        own = tokens[rows]
        up = None if third is None else third(int(expert), own)
        y = second(int(expert), _hidden(first(int(expert), own), up, attrs))
        total[rows] += y * shares[rows, places, None]
    return total.reshape(x.shape).astype(x.dtype)


def _layer(weights: Array, bias: Array | None) -> Layer:
    def product(expert: int, x: Array) -> Array:
        y = x @ weights[expert].astype(np.float32).T
        return y if bias is None else y + bias[expert].astype(np.float32)

    return product


def _experts(
    x: Array, scores: Array, w1: Array, b1: Array | None, w2: Array, b2: Array | None = None,
    w3: Array | None = None, b3: Array | None = None, **attrs: Any,
) -> Array:  # fmt: skip
    third = None if w3 is None else _layer(w3, b3)
    return _mixed(x, scores, (_layer(w1, b1), _layer(w2, b2), third), attrs)


def _quantized_layer(
    packed: Array, scales: Array, zeros: Array | None, bias: Array | None, bits: int, block: int
) -> Layer:
    """Integers of `bits`, with one scale a row, or one for every `block` of a row."""

    def weights(expert: int) -> Array:
        count = packed.shape[-1] * 8 // bits
        codes = unpack_bits(packed[expert], bits, count).astype(np.float32)
        factors = scales[expert].astype(np.float32)
        middle: Any = np.float32(2.0 ** (bits - 1))
        if zeros is not None:
            number = factors.shape[-1]
            middle = unpack_bits(zeros[expert], bits, number).astype(np.float32)
        if not block:
            middle = middle if zeros is None else middle[:, None]
            return (codes - middle) * factors.reshape(-1, 1)
        blocks = codes.reshape(*factors.shape, block)
        middle = middle if zeros is None else middle[..., None]
        return ((blocks - middle) * factors[..., None]).reshape(codes.shape)

    def product(expert: int, x: Array) -> Array:
        y = x @ weights(expert).T
        return y if bias is None else y + bias[expert].astype(np.float32)

    return product


def _quantized_experts(
    x: Array, scores: Array, w1: Array, s1: Array, b1: Array | None, w2: Array, s2: Array,
    b2: Array | None = None, w3: Array | None = None, s3: Array | None = None,
    b3: Array | None = None, z1: Array | None = None, z2: Array | None = None,
    z3: Array | None = None, mixing: Array | None = None, *others: Array | None, **attrs: Any,
) -> Array:  # fmt: skip
    if attrs["quant_type"] != "int" or w1.dtype != np.uint8:
        raise ValueError(f"quant_type {attrs['quant_type']!r} is not supported; expected 'int'")
    if attrs["weights_prepacked"] == 1:
        raise ValueError("its weights are packed for one device; export them with 0")
    bits = [attrs[f"fc{n}_expert_weight_bits"] or attrs["expert_weight_bits"] for n in (1, 2, 3)]
    block = attrs["block_size"] or 0
    third = None
    if w3 is not None and s3 is not None:
        third = _quantized_layer(w3, s3, z3, b3, bits[2], block)
    first = _quantized_layer(w1, s1, z1, b1, bits[0], block)
    second = _quantized_layer(w2, s2, z2, b2, bits[1], block)
    return _mixed(x, scores, (first, second, third), attrs, mixing)


def _row(name: str, inputs: str, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, "output", same, meaning, attrs=attrs)


_ATTRS: dict[str, Any] = {
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    "activation_type": "relu",
    "k": 1,
    "normalize_routing_weights": 0,
    "swiglu_fusion": 0,
    "swiglu_limit": None,
    "swiglu_limit_after_activation": 0,
    "use_sparse_mixer": 0,
}

ROWS = (
    _row(
        "MoE",
        "input router_probs fc1_experts_weights fc1_experts_bias? fc2_experts_weights"
        " fc2_experts_bias? fc3_experts_weights? fc3_experts_bias?",
        _experts,
        **_ATTRS,
    ),
    _row(
        "QMoE",
        "input router_probs fc1_experts_weights:W fc1_scales?:S fc1_experts_bias?"
        " fc2_experts_weights:W fc2_scales?:S fc2_experts_bias? fc3_experts_weights?:W"
        " fc3_scales?:S fc3_experts_bias? fc1_zero_points?:W fc2_zero_points?:W fc3_zero_points?:W"
        " router_weights? fc1_global_scale?:f32 fc2_global_scale?:f32 fc1_act_scale?:f32"
        " fc2_act_scale?:f32 fc1_act_block_scale?:any fc2_act_block_scale?:any",
        _quantized_experts,
        **_ATTRS,
        accuracy_level=0,
        block_size=None,
        expert_weight_bits=4,
        fc1_expert_weight_bits=None,
        fc2_expert_weight_bits=None,
        fc3_expert_weight_bits=None,
        quant_type="int",
        weights_prepacked=-1,
    ),
)

"""Old operator sets and operators that ONNX has dropped mean what onnxruntime computes."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tuili.importers.onnx import import_model
from tuili.ops.interpret import run

RNG = np.random.default_rng(3)
X = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
TEXTS = np.array(["a", "c", "z"], object)
IMAGE = RNG.standard_normal((1, 2, 6, 7)).astype(np.float32)


def ints(*items: int) -> Any:
    return np.array(items, np.int64)


def floats(*items: float) -> Any:
    return np.array(items, np.float32)


def model_of(
    op: str, inputs: list[Any], attrs: dict[str, Any], opset: int, outputs: int
) -> onnx.ModelProto:
    """A node whose first input is fed and whose others are constants."""
    domain = "ai.onnx.ml" if op == "LabelEncoder" else ""
    names = [f"i{k}" for k in range(len(inputs))]
    kind = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)
    node = helper.make_node(op, names, [f"o{k}" for k in range(outputs)], domain=domain, **attrs)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(names[0], kind, inputs[0].shape)],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [
            onnx.numpy_helper.from_array(item, name)
            for name, item in zip(names[1:], inputs[1:], strict=True)
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=4)


CASES: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    ("Affine", 7, [X], {"alpha": 2.0, "beta": 1.0}),
    ("Scale", 7, [X], {"scale": 2.0}),
    ("ImageScaler", 7, [X], {"scale": 2.0, "bias": [1.0, 2.0, 3.0]}),
    ("ParametricSoftplus", 7, [X], {"alpha": 2.0, "beta": 0.5}),
    ("ScaledTanh", 7, [X], {"alpha": 2.0, "beta": 0.5}),
    ("Crop", 7, [IMAGE], {"border": [1, 2, 1, 0]}),
    ("Crop", 7, [IMAGE], {"border": [1, 2, 1, 1], "scale": [3, 4]}),
    ("DynamicSlice", 7, [X, ints(1, 0), ints(3, 4), ints(2, 3)], {}),
    ("MeanVarianceNormalization", 7, [X], {"across_channels": 1}),
    ("MeanVarianceNormalization", 7, [X], {}),
    ("LabelEncoder", 9, [TEXTS], {"classes_strings": ["a", "b", "c"], "default_int64": -7}),
    ("LabelEncoder", 9, [ints(0, 2, 9)], {"classes_strings": ["a", "b", "c"], "default_string": "no"}),
    ("Upsample", 7, [X], {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}),
    ("Upsample", 9, [X, floats(1, 1, 2, 1.5)], {"mode": "linear"}),
    ("Upsample", 9, [X, floats(1, 1, 2, 3)], {"mode": "nearest"}),
    ("Resize", 10, [X, floats(1, 1, 0.6, 0.4)], {"mode": "nearest"}),
    ("Resize", 10, [X, floats(1, 1, 2, 1.5)], {"mode": "nearest"}),
    ("Resize", 10, [X, floats(1, 1, 0.6, 1.7)], {"mode": "linear"}),
    *[
        ("Resize", 11, [X, floats(), floats(1, 1, 2, 2.4)], {"mode": mode, "coordinate_transformation_mode": places})
        for mode, places in (
            ("nearest", "half_pixel"),
            ("cubic", "half_pixel"),
            ("linear", "pytorch_half_pixel"),
            ("nearest", "tf_half_pixel_for_nn"),
            ("nearest", "asymmetric"),
        )
    ],
    ("BatchNormalization", 7, [X, *[RNG.random((3, 4, 5)).astype(np.float32) for _ in range(4)]], {"spatial": 0}),
    ("Softmax", 11, [X], {"axis": 2}),
    ("LogSoftmax", 7, [X], {"axis": -2}),
    ("Hardmax", 11, [X], {"axis": 2}),
    ("Pad", 2, [X], {"pads": [0, 0, 1, 1, 0, 0, -1, 1], "value": 2.0}),
    ("Slice", 9, [X], {"starts": [0, 1], "ends": [2, -1]}),
    ("Split", 2, [X], {"axis": 1, "split": [1, 2]}),
    ("Split", 11, [X], {"axis": 3, "split": [2, 3]}),
    ("TopK", 1, [X], {"k": 2}),
    ("Squeeze", 1, [X[:1]], {"axes": [0]}),
    ("Unsqueeze", 11, [X], {"axes": [0, -1]}),
    ("Clip", 6, [X], {"min": -0.5}),
    ("PRelu", 7, [X, RNG.random((3, 1, 1)).astype(np.float32)], {}),
    ("LpPool", 2, [X], {"kernel_shape": [2, 2]}),
    ("ReduceLogSumExp", 11, [X], {"axes": [1, -1], "keepdims": 0}),
    ("MaxPool", 10, [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("RoiAlign", 10, [X, floats(0, 0, 3, 3).reshape(1, 4), ints(0)], {"output_height": 2, "output_width": 2}),
    ("Scatter", 9, [X[0, 0, :3, :3], ints(0, 1, 2).reshape(1, 3), floats(7, 8, 9).reshape(1, 3)], {"axis": 0}),
    ("GroupNormalization", 18, [X[:, [0, 1, 2, 0]], floats(1, 2), floats(3, 4)], {"num_groups": 2}),
]  # fmt: skip
TWO = {"Split", "TopK"}


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attrs"),
    CASES,
    ids=[f"{op}-{opset}-{n}" for n, (op, opset, *_) in enumerate(CASES)],
)
def test_it_means_what_it_meant(
    op: str, opset: int, inputs: list[Any], attrs: dict[str, Any]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(op, inputs, attrs, opset, 2 if op in TWO else 1)
    feeds = {"i0": inputs[0]}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    expected = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    for found, wanted in zip(run(import_model(model), feeds).values(), expected, strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        if found.dtype == object:
            assert found.tolist() == wanted.tolist()
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


C = RNG.standard_normal((3, 4)).astype(np.float32)
# Operator sets that onnxruntime does not run any more, with what they must give.
BEFORE: list[tuple[str, int, list[Any], dict[str, Any], Any]] = [
    ("Add", 6, [X, C], {"broadcast": 1, "axis": 1}, X + C[:, :, None]),
    ("Sub", 6, [X, C[0, :1]], {"broadcast": 1}, X - C[0, 0]),
    ("Pow", 1, [np.abs(X), C[:, 0]], {"broadcast": 1, "axis": 1}, np.abs(X) ** C[:, 0, None, None]),
    ("Greater", 1, [X, C[:, 0]], {"broadcast": 1, "axis": -3}, C[:, 0, None, None] < X),
    ("PRelu", 6, [X, C[:, 0]], {}, np.where(X < 0, X * C[:, 0, None, None], X)),
    ("Tile", 1, [X[0, 0], floats(2).reshape(()), floats(1).reshape(())], {}, np.tile(X[0, 0], (1, 2))),
    ("Split", 1, [X[0, 0, 0], floats(2, 3)], {}, X[0, 0, 0, :2]),
    ("Concat", 1, [C, C], {}, np.concatenate([C, C], 1)),
    ("Gemm", 6, [C.T, C, C[0]], {"broadcast": 1}, C.T @ C + C[0]),
    ("Dropout", 6, [X], {"is_test": 1, "ratio": 0.3}, X),
    ("Reshape", 1, [X], {"shape": [6, -1]}, X.reshape(6, -1)),
    ("Upsample", 1, [X], {"width_scale": 2.0, "height_scale": 3.0, "mode": "nearest"}, X.repeat(3, 2).repeat(2, 3)),
    ("Cast", 1, [X], {"to": "INT32"}, X.astype(np.int32)),
    ("Selu", 1, [np.abs(X)], {}, np.abs(X) * np.float32(1.0507)),
    ("Relu", 1, [X], {"consumed_inputs": [0]}, np.maximum(X, 0)),
    ("ConstantFill", 7, [ints(2, 3)], {"input_as_shape": 1, "value": 1.5}, np.full((2, 3), 1.5, np.float32)),
    ("ConstantFill", 7, [C], {"value": 1.5, "extra_shape": [2]}, np.full((3, 4, 2), 1.5, np.float32)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attrs", "expected"),
    BEFORE,
    ids=[f"{op}-{opset}-{n}" for n, (op, opset, *_) in enumerate(BEFORE)],
)
def test_it_means_what_its_old_page_says(
    op: str, opset: int, inputs: list[Any], attrs: dict[str, Any], expected: Any
) -> None:
    model = model_of(op, inputs, attrs, opset, 2 if op in TWO else 1)
    found = next(iter(run(import_model(model), {"i0": inputs[0]}).values()))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)

"""com.microsoft operators against onnxruntime, which defines them."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.ops.from_onnx import graph_of
from tuili.ir import TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.ops.table import TABLE
from tuili.tensors import Array

RNG = np.random.default_rng(7)


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def u8(*shape: int) -> Array:
    return RNG.integers(0, 255, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    """Weights of seven bits, so that the sum of two products fits 16 bits: 2 * 255 * 64 < 2**15.

    Without VNNI onnxruntime adds products of u8 and i8 in pairs, and clips the pair to 16 bits
    (its quantizer's `reduce_range` is for that); larger weights would compare us with its errors.
    """
    return RNG.integers(-64, 64, shape).astype(np.int8)


def i32(*items: int) -> Array:
    return np.array(items, np.int32)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


def zero(value: int, kind: Any = np.uint8) -> Array:
    return np.array(value, kind)


Q = [u8(2, 3, 4, 4), scale(0.02), zero(120), scale(0.03), zero(110)]
Q2 = [u8(2, 3, 4), scale(0.02), zero(120), u8(3, 4), scale(0.05), zero(90), scale(0.1), zero(128)]
LSTM = {
    "W": i8(2, 5, 16), "R": i8(2, 4, 16), "ws": np.abs(f32(2)) / 50, "rs": np.abs(f32(2)) / 50,
    "wz": np.zeros(2, np.int8), "rz": np.zeros(2, np.int8),
}  # fmt: skip

# operator, inputs (None: left out), attributes, number of outputs, tolerance
CASES: list[tuple[str, list[Any], dict[str, Any], int, float]] = [
    ("FusedMatMul", [f32(2, 3, 4), f32(2, 4, 5)], {"alpha": 0.5}, 1, 1e-5),
    ("FusedMatMul", [f32(2, 4, 3), f32(2, 5, 4)], {"transA": 1, "transB": 1}, 1, 1e-5),
    ("FusedMatMul", [f32(3, 2, 4), f32(2, 4, 5)], {"transBatchA": 1}, 1, 1e-5),
    ("TransposeMatMul", [f32(2, 4, 3), f32(2, 4, 5)], {"transA": 1}, 1, 1e-5),
    ("FusedGemm", [f32(3, 4), f32(4, 5), f32(5)], {"activation": "Relu"}, 1, 1e-5),
    ("FusedConv", [f32(1, 2, 5, 5), f32(3, 2, 3, 3), f32(3)], {"activation": "Relu"}, 1, 1e-4),
    (
        "FusedConv", [f32(1, 2, 5, 5), f32(3, 2, 3, 3), f32(3), f32(1, 3, 3, 3)],
        {"activation": "LeakyRelu", "activation_params": [0.1]}, 1, 1e-4,
    ),
    ("MatMulNBits", [f32(2, 32), u8(5, 2, 8), f32(10)], {"K": 32, "N": 5, "block_size": 16, "bits": 4}, 1, 1e-3),
    ("MatMulNBits", [f32(2, 32), u8(5, 2, 8), f32(10), u8(5)], {"K": 32, "N": 5, "block_size": 16, "bits": 4}, 1, 1e-3),
    ("MatMulNBits", [f32(2, 32), u8(5, 2, 16), f32(10)], {"K": 32, "N": 5, "block_size": 16, "bits": 8}, 1, 1e-2),
    ("Gelu", [f32(3, 4)], {}, 1, 1e-5),
    ("FastGelu", [f32(3, 4), f32(4)], {}, 1, 1e-5),
    ("QuickGelu", [f32(3, 4)], {"alpha": 1.5}, 1, 1e-5),
    ("BiasGelu", [f32(3, 4), f32(4)], {}, 1, 1e-5),
    ("SkipLayerNormalization", [f32(2, 3, 4), f32(2, 3, 4), f32(4), f32(4), f32(4)], {"epsilon": 1e-5}, 1, 1e-4),
    ("SkipSimplifiedLayerNormalization", [f32(2, 3, 4), f32(2, 3, 4), f32(4)], {"epsilon": 1e-5}, 1, 1e-4),
    (
        "EmbedLayerNormalization",
        [i32(1, 2, 3, 0, 1, 2).reshape(2, 3), i32(0, 1, 1, 0, 0, 1).reshape(2, 3), f32(6, 8),
         f32(4, 8), f32(2, 8), f32(8), f32(8), i32(1, 1, 0, 1, 0, 0).reshape(2, 3)],
        {"epsilon": 1e-5}, 2, 1e-4,
    ),
    ("Inverse", [f32(2, 3, 3)], {}, 1, 1e-3),
    ("Trilu", [f32(3, 4)], {"upper": 0}, 1, 0),
    ("ExpandDims", [f32(3, 4), np.array(1, np.int32)], {}, 1, 0),
    ("CDist", [f32(3, 4), f32(5, 4)], {"metric": "euclidean"}, 1, 1e-4),
    ("QLinearAdd", Q2, {}, 1, 1),
    ("QLinearMul", Q2, {}, 1, 1),
    ("QLinearSigmoid", [*Q[:3], scale(0.004), zero(0)], {}, 1, 1),
    ("QLinearLeakyRelu", Q, {"alpha": 0.1}, 1, 1),
    ("QLinearSoftmax", [u8(2, 5), scale(0.05), zero(120), scale(1 / 256), zero(0)], {"axis": -1, "opset": 13}, 1, 1),
    ("QLinearGlobalAveragePool", Q, {"channels_last": 0}, 1, 1),
    ("QLinearGlobalAveragePool", Q, {"channels_last": 1}, 1, 1),
    ("QLinearAveragePool", Q, {"kernel_shape": [2, 2]}, 1, 1),
    (
        "QLinearConcat", [scale(0.03), zero(100), u8(2, 3), scale(0.02), zero(90), u8(2, 4), scale(0.05), zero(128)],
        {"axis": 1}, 1, 1,
    ),
    (
        "QLinearWhere", [np.array([True, False]), u8(2), scale(0.02), zero(90), u8(2), scale(0.05), zero(128), scale(0.03), zero(110)],
        {}, 1, 1,
    ),
    ("MatMulIntegerToFloat", [u8(3, 4), i8(4, 5), scale(0.02), scale(0.03), zero(120), zero(3, np.int8)], {}, 1, 1e-4),
    ("MatMulIntegerToFloat", [u8(3, 4), i8(4, 5), scale(0.02), np.abs(f32(5)), zero(120), None, f32(5)], {}, 1, 1e-3),
    ("DynamicQuantizeMatMul", [f32(3, 4), i8(4, 5), scale(0.03), zero(0, np.int8), f32(5)], {}, 1, 2e-2),
    ("QGemm", [u8(3, 4), scale(0.02), zero(120), i8(4, 5), scale(0.03), zero(0, np.int8), np.arange(5, dtype=np.int32)], {}, 1, 1e-4),
    ("QGemm", [u8(3, 4), scale(0.02), zero(120), i8(4, 5), scale(0.03), zero(0, np.int8), None, scale(0.1), zero(128)], {}, 1, 1),
    (
        "DynamicQuantizeLSTM",
        [f32(6, 1, 5), LSTM["W"], LSTM["R"], f32(2, 32), None, None, None, None, LSTM["ws"], LSTM["wz"],
         LSTM["rs"], LSTM["rz"]],
        {"hidden_size": 4, "direction": "bidirectional"}, 3, 2e-2,
    ),
    ("QuantizeLinear", [f32(3, 4), scale(0.02), zero(128)], {}, 1, 0),
    ("DequantizeLinear", [u8(3, 4), scale(0.02), zero(128)], {}, 1, 1e-6),
    ("Attention", [f32(2, 3, 8), f32(8, 24), f32(24)], {"num_heads": 2}, 1, 1e-4),
    ("Attention", [f32(2, 3, 8), f32(8, 24), f32(24), i32(3, 2)], {"num_heads": 2}, 1, 1e-4),
    ("Attention", [f32(2, 3, 8), f32(8, 24), f32(24), None, f32(2, 2, 2, 4, 4)], {"num_heads": 2, "unidirectional": 1}, 2, 1e-4),
    ("MultiHeadAttention", [f32(2, 3, 8), f32(2, 5, 8), f32(2, 5, 8), f32(24)], {"num_heads": 2}, 1, 1e-4),
    ("MultiHeadAttention", [f32(2, 3, 8), f32(2, 5, 8), f32(2, 5, 12), None, None, f32(1, 2, 3, 5)], {"num_heads": 2}, 1, 1e-4),
    ("MultiHeadAttention", [f32(2, 3, 8), f32(2, 3, 8), f32(2, 3, 8), None, None, None, f32(2, 2, 4, 4), f32(2, 2, 4, 4)],
     {"num_heads": 2}, 3, 1e-4),
    (
        "GroupQueryAttention",
        [f32(1, 3, 16), f32(1, 3, 8), f32(1, 3, 8), None, None, i32(2), np.array(3, np.int32)],
        {"num_heads": 2, "kv_num_heads": 1}, 3, 1e-4,
    ),
    (
        "GroupQueryAttention",
        [f32(1, 1, 32), f32(1, 1, 16), f32(1, 1, 16), f32(1, 1, 4, 16), f32(1, 1, 4, 16), i32(4),
         np.array(5, np.int32), f32(8, 8), f32(8, 8)],
        {"num_heads": 2, "kv_num_heads": 1, "do_rotary": 1}, 3, 1e-4,
    ),
    ("Range", [np.array(1.0, np.float32), np.array(6.0, np.float32), np.array(2.0, np.float32)], {}, 1, 0),
    ("GatherND", [f32(2, 3), np.array([[0, 1], [1, 2]])], {}, 1, 0),
    ("Pad", [f32(2, 3), np.array([0, 1, 2, 0]), np.array([0.5], np.float32)], {"mode": "constant"}, 1, 0),
    ("NGramRepeatBlock", [np.array([[1, 2, 3, 1, 2]]), f32(1, 5)], {"ngram_size": 3}, 1, 0),
    ("GatherBlockQuantized", [u8(3, 16), np.array([2, 0]), f32(3, 2)], {"bits": 4, "block_size": 16, "quantize_axis": 1}, 1, 1e-5),
    ("GatherBlockQuantized", [u8(3, 16), np.array([[2, 0]]), f32(3, 2), u8(3, 1)], {"bits": 4, "block_size": 16, "quantize_axis": 1}, 1, 1e-5),
    ("UnfoldTensor", [f32(2, 7)], {"dim": -1, "size": 3, "step": 2}, 1, 0),
    ("RotaryEmbedding", [f32(2, 3, 8), np.array([1]), f32(6, 2), f32(6, 2)], {"num_heads": 2}, 1, 1e-5),
    ("RotaryEmbedding", [f32(2, 2, 3, 4), np.array([[0, 1, 2], [3, 4, 5]]), f32(6, 2), f32(6, 2)], {"interleaved": 1}, 1, 1e-5),
]  # fmt: skip


def model_of(op: str, inputs: list[Any], attrs: dict[str, Any], outputs: int) -> onnx.ModelProto:
    names = [f"i{k}" if item is not None else "" for k, item in enumerate(inputs)]
    made = [f"o{k}" for k in range(outputs)]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(item.dtype), item.shape)
        for name, item in zip(names, inputs, strict=True)
        if name
    ]
    node = helper.make_node(op, names, made, domain="com.microsoft", **attrs)
    results = [onnx.ValueInfoProto(name=name) for name in made]
    graph = helper.make_graph([node], "contrib", infos, results)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "outputs", "tolerance"),
    CASES,
    ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)],
)
def test_agrees_with_onnxruntime(
    op: str, inputs: list[Any], attrs: dict[str, Any], outputs: int, tolerance: float
) -> None:
    model = model_of(op, inputs, attrs, outputs)
    feeds = {f"i{k}": item for k, item in enumerate(inputs) if item is not None}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    expected = session.run(None, feeds)
    graph = graph_of(model)
    infer(graph)
    found = run(graph, feeds)
    for value, wanted in zip(graph.outputs, expected, strict=True):
        array = found[value.name]
        assert isinstance(value.type, TensorType)
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
        assert value.type.shape is None or len(value.type.shape) == array.ndim
        np.testing.assert_allclose(
            array.astype(float), wanted.astype(float), rtol=tolerance, atol=tolerance
        )


def test_every_case_is_in_the_table() -> None:
    assert {f"com.microsoft::{case[0]}" for case in CASES} <= set(TABLE)

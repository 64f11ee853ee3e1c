"""com.microsoft operators against onnxruntime, which defines them."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

import numpy as np
import pytest

from tests.ops.beside_onnxruntime import RNG, Case, check, f32, i8, i32, scale, u8, zero
from tuili.ops.table import TABLE

Q = [u8(2, 3, 4, 4), scale(0.02), zero(120), scale(0.03), zero(110)]
Q2 = [u8(2, 3, 4), scale(0.02), zero(120), u8(3, 4), scale(0.05), zero(90), scale(0.1), zero(128)]
LSTM = {
    "W": i8(2, 5, 16), "R": i8(2, 4, 16), "ws": np.abs(f32(2)) / 50, "rs": np.abs(f32(2)) / 50,
    "wz": np.zeros(2, np.int8), "rz": np.zeros(2, np.int8),
}  # fmt: skip

CASES: list[Case] = [
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
    ("FusedMatMul", [f32(3, 2, 4), f32(4, 2, 5)], {"transBatchA": 1, "transBatchB": 1}, 1, 1e-5),
    *[
        ("FusedConv", [f32(1, 2, 5, 5), f32(3, 2, 3, 3), f32(3)], {"activation": name, **more}, 1, 1e-4)
        for name, more in (
            ("Clip", {"activation_params": [-0.5, 0.5]}),
            ("HardSigmoid", {"activation_params": [0.3, 0.4]}),
            ("HardSwish", {}),
            ("Tanh", {}),
        )
    ],
    *[
        ("FusedGemm", [f32(3, 4), f32(4, 5), f32(5)], {"activation": name, **more}, 1, 1e-4)
        for name, more in (
            ("Elu", {"activation_alpha": 1.2}),
            ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
            ("Softplus", {}),
        )
    ],
    ("SkipLayerNormalization", [f32(2, 3, 4), f32(2, 3, 4), f32(4), f32(4), f32(4)], {}, 4, 1e-4),
    ("SkipLayerNormalization", [f32(2, 3, 4), f32(1, 3, 4), f32(4)], {}, 1, 1e-4),
    ("SkipSimplifiedLayerNormalization", [f32(2, 3, 4), f32(2, 3, 4), f32(4), f32(4)], {}, 4, 1e-4),
    ("MatMulInteger16", [i8(2, 3).astype(np.int16) * 99, i8(3, 4).astype(np.int16) * 99], {}, 1, 0),
    ("ScaledSiLU", [f32(2, 3)], {"alpha": 1.5}, 1, 1e-5),
    ("Unique", [np.array([2, 1, 1, 3, 4, 3], np.float32)], {}, 3, 0),
    *[("DynamicTimeWarping", [f32(5, 7)], {}, 1, 0) for _ in range(4)],
    ("DynamicTimeWarping", [np.abs(f32(1, 9, 4))], {}, 1, 0),
    *[
        (
            "CropAndResize",
            [f32(2, 3, 8, 9), np.array([[0, 0, 1, 1], [0.2, 0.1, 0.7, 0.9], [-0.2, 0.3, 1.2, 0.8]], np.float32), i32(0, 1, 1), i32(*size)],
            {"mode": mode, "extrapolation_value": 0.5}, 1, 1e-5,
        )
        for mode in ("bilinear", "nearest")
        for size in ((4, 5), (1, 3))
    ],
    (
        "QEmbedLayerNormalization",
        [i32(1, 2, 3, 0, 1, 2).reshape(2, 3), i32(0, 1, 1, 0, 0, 1).reshape(2, 3), u8(6, 8), u8(4, 8), u8(2, 8), u8(8), u8(8),
         i32(1, 1, 0, 1, 0, 0).reshape(2, 3), *map(scale, (0.01, 0.02, 0.03, 0.01, 0.02)), *map(zero, (120, 110, 130, 90, 128))],
        {}, 2, 1e-4,
    ),
]  # fmt: skip

# Weights that onnxruntime wants as initializers; onnxruntime multiplies by other orders of sums.
PACKED: list[Case] = [
    *[
        ("MatMulNBits", [f32(2, 3, 40), u8(6, 3, 2 * bits), f32(6, 3), zeros], {"K": 40, "N": 6, "block_size": 16, "bits": bits}, 1, 1e-2)
        for bits in (2, 4, 8)
        for zeros in (None, u8(6, -(-3 * bits // 8)), *([f32(6, 3)] if bits < 8 else []))
    ],
    ("MatMulNBits", [f32(2, 32), u8(5, 2, 8), f32(5, 2), None, None, f32(5)], {"K": 32, "N": 5, "block_size": 16, "bits": 4}, 1, 1e-2),
    ("MatMulNBits", [f32(2, 32), u8(0, 2, 8), f32(5, 2), None, None, f32(5)], {"K": 32, "N": 5, "block_size": 16, "bits": 4}, 1, 0),
    (
        "MatMulNBits", [f32(2, 64), u8(5, 4, 8), f32(5, 4), None, RNG.permutation(np.repeat(np.arange(4), 16)).astype(np.int32)],
        {"K": 64, "N": 5, "block_size": 16, "bits": 4}, 1, 1e-2,
    ),
    *[
        ("MatMulBnb4", [f32(2, 64), u8(160), np.abs(f32(20))], {"K": 64, "N": 5, "block_size": 16, "quant_type": kind}, 1, 1e-4)
        for kind in (0, 1)
    ],
]  # fmt: skip
TABLES: list[Case] = [
    ("GatherBlockQuantized", [u8(6, 4 * bits), np.array([[2, 0], [5, -1]]), f32(6, 2), *zeros], {"bits": bits, "block_size": 16, "quantize_axis": axis}, 1, 1e-5)
    for bits in (2, 4, 8)
    for axis in (1, -1)
    for zeros in ((), (u8(6, -(-2 * bits // 8)),))
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_agrees_with_onnxruntime(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", PACKED, ids=[f"{case[0]}-{n}" for n, case in enumerate(PACKED)])
def test_packed_weights_agree_with_onnxruntime(case: Case) -> None:
    check(case, weights=True)


@pytest.mark.parametrize("case", TABLES, ids=range(len(TABLES)))
def test_look_ups_in_packed_tables_agree_with_onnxruntime(case: Case) -> None:
    check(case)


def test_every_case_is_in_the_table() -> None:
    assert {f"com.microsoft::{case[0]}" for case in [*CASES, *PACKED, *TABLES]} <= set(TABLE)

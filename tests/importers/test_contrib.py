"""Fused operators of ONNX Runtime: what they are spelt as at import means what they mean."""

# ruff: noqa: E501 - the cases are a table
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.importers.single_nodes import (
    Case,
    assert_close,
    assert_native,
    feeds_of,
    meaning,
    model_of,
)
from tests.ops.beside_onnxruntime import by_onnxruntime, f32, i8, i32, scale, u8, zero
from tuili.errors import InvalidModel
from tuili.importers.onnx import import_model
from tuili.importers.onnx.contrib import CONTRIB
from tuili.ir import verify
from tuili.ops.interpret import run
from tuili.tensors import Array


def f16(*shape: int) -> Array:
    return f32(*shape).astype(np.float16)


TEXT = "batch seq _"
IDS = i32(1, 2, 3, 0, 1, 2).reshape(2, 3)
SEGMENTS = i32(0, 1, 1, 0, 0, 1).reshape(2, 3)
MASK = i32(1, 1, 0, 1, 0, 0).reshape(2, 3)
PLACES = i32(3, 1, 0, 0, 1, 2).reshape(2, 3)
TABLES = [f32(6, 8), f32(4, 8), f32(2, 8), f32(8), f32(8)]
TOKENS = {0: "batch seq", 1: "batch seq"}
CODES = [u8(6, 8), u8(4, 8), u8(2, 8), u8(8), u8(8)]
PARAMETERS = [*map(scale, (0.01, 0.02, 0.03, 0.01, 0.02)), *map(zero, (120, 110, 130, 90, 128))]
PICTURE = "batch height width _"
FILTERS = [f32(6, 4, 3, 3) / 4, f32(6)]
QCONV = [
    u8(2, 7, 6, 4),
    scale(0.02),
    zero(120),
    i8(6, 4, 3, 3),
    scale(0.03),
    zero(0, np.int8),
    scale(0.5),
    zero(110),
    np.arange(6, dtype=np.int32),
]
GAINS = [f32(8), f32(8)]
# A grid with coordinates that are no numbers, as exported detectors make of maps of one element.
LOST = np.where(f32(2, 4, 3, 2) > 0.5, np.float32(np.nan), f32(2, 4, 3, 2))

CASES = [
    # activations and small arithmetic
    Case("BiasGelu", [f32(2, 3, 4), f32(4)], {0: TEXT}),
    Case("FastGelu", [f32(2, 3, 4), f32(4)], {0: TEXT}),
    Case("FastGelu", [f32(2, 3, 4)], {0: TEXT}),
    Case("Gelu", [f32(2, 3, 4)], {0: TEXT}),
    Case("QuickGelu", [f32(2, 3, 4)], {0: TEXT}, {"alpha": 1.5}),
    Case("ScaledSiLU", [f32(2, 3, 4)], {0: TEXT}, {"alpha": 1.5}),
    Case("ScaledSiLU", [f32(2, 3, 4), f32()], {0: TEXT}),
    Case("BiasSplitGelu", [f32(2, 3, 8), f32(8)], {0: TEXT}),
    Case("SwiGLU", [f32(2, 3, 8)], {0: TEXT}),
    Case("SwiGLU", [f32(2, 3, 8), f32(2, 3, 8)], {0: TEXT, 1: TEXT}, {"activation_alpha": 1.702, "activation_beta": 1.0, "limit": 0.7}),
    Case("BiasAdd", [f32(2, 3, 4), f32(4), f32(2, 3, 4)], {0: TEXT, 2: TEXT}),
    Case("BiasDropout", [f32(2, 3, 4), f32(4), f32(2, 3, 4), np.array(0.3, np.float32), np.array(False)], {0: TEXT, 2: TEXT}, outputs="y mask"),
    Case("BiasSoftmax", [f32(2, 3, 4, 5), f32(2, 1, 1, 5)], {0: "batch heads seq _", 1: "batch _ _ _"}, {"axis": 3, "is_inner_broadcast": 0}),
    Case("BiasSoftmax", [f32(2, 3, 4, 5), f32(4, 5)], {0: "batch heads seq _", 1: "seq _"}, {"axis": 2, "is_inner_broadcast": 1}),
    Case("BiasSoftmax", [f32(2, 3, 4, 5), f32(2, 4, 5)], {0: "batch heads seq _", 1: "batch seq _"}, {"axis": 3, "is_inner_broadcast": 0}),
    Case("ComplexMul", [f32(3, 4, 2), f32(4, 2)], {0: "a b _", 1: "b _"}),
    Case("ComplexMulConj", [f32(3, 4, 2), f32(4, 2)], {0: "a b _", 1: "b _"}),
    Case("IsAllFinite", [f32(3, 4), np.array([1, np.inf], np.float32)], {0: "a b", 1: "c"}),
    Case("IsAllFinite", [f32(3, 4), np.array([1, np.inf], np.float32)], {0: "a b", 1: "c"}, {"isnan_only": 1}),
    Case("IsAllFinite", [np.array([-np.inf, np.nan], np.float32)], {0: "c"}, {"isinf_only": 1}),
    # under their first name
    Case("ExpandDims", [f32(3, 4), np.array(-2, np.int32)], {0: "a b"}),
    Case("GatherND", [f32(5, 3), np.array([[0, 1], [1, 2]])], {0: "a b", 1: "n _"}),
    Case("Pad", [f32(2, 3), np.array([0, 1, 2, 0]), np.array([0.5], np.float32)], {0: "a b"}, {"mode": "constant"}),
    Case("Range", [np.array(1.0, np.float32), np.array(6.0, np.float32), np.array(2.0, np.float32)], {0: ""}),
    Case("TorchEmbedding", [f32(6, 4), np.array([[2, 0, 5]])], {1: "a b"}),
    Case("Trilu", [f32(3, 4)], {0: "a b"}, {"upper": 0}),
    *[
        Case("GridSample", [f32(2, 3, 5, 6), 1.4 * f32(2, 4, 3, 2)], {0: "batch _ height width", 1: "batch _ _ _"}, {"mode": mode, "padding_mode": padding, "align_corners": corners})
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ],
    *[
        Case("GridSample", [f32(2, 3, 5, 6), LOST], {0: "batch _ height width", 1: "batch _ _ _"}, {"mode": mode, "padding_mode": padding})
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
    ],
    # products
    Case("FusedMatMul", [f32(2, 3, 4), f32(2, 5, 4)], {0: "batch a _", 1: "batch b _"}, {"transB": 1, "alpha": 0.5}),
    Case("FusedMatMul", [f32(3, 2, 4), f32(2, 4, 5)], {0: "a batch _"}, {"transBatchA": 1}),
    Case("FusedMatMul", [f32(3, 2, 4), f32(4, 2, 5)], {0: "a batch _"}, {"transBatchA": 1, "transBatchB": 1, "transA": 0}),
    Case("TransposeMatMul", [f32(2, 4, 3), f32(2, 4, 5)], {0: "batch _ a"}, {"transA": 1}),
    Case("FusedMatMulActivation", [f32(2, 3, 4), f32(4, 5)], {0: TEXT}, {"activation": "Softmax", "alpha": 0.5}),
    Case("FusedMatMulActivation", [f32(2, 3, 4), f32(5, 4)], {0: TEXT}, {"activation": "LeakyRelu", "activation_alpha": 0.1, "transB": 1}),
    Case("GemmFastGelu", [f32(2, 3, 4), f32(4, 5), f32(5)], {0: TEXT}),
    Case("FusedGemm", [f32(3, 4), f32(4, 5), f32(5)], {0: "n _"}, {"activation": "LeakyRelu", "activation_alpha": 0.2}),
    Case("FusedConv", [f32(1, 4, 7, 6), *FILTERS], {0: "batch _ height width"}, {"activation": "Clip", "activation_params": [-0.5, 0.5]}),
    Case("FusedConv", [f32(1, 4, 7, 6), *FILTERS, f32(1, 6, 5, 4)], {0: "batch _ _ _", 3: "batch _ _ _"}, {"activation": "Relu"}),
    # channels last
    Case("NhwcConv", [f32(2, 7, 6, 4), f32(6, 3, 3, 4) / 4, f32(6)], {0: PICTURE}, {"pads": [1, 1, 1, 1]}),
    Case("NhwcFusedConv", [f32(2, 7, 6, 4), *FILTERS, f32(2, 7, 6, 6)], {0: "batch _ _ _", 3: "batch _ _ _"}, {"pads": [1, 1, 1, 1], "activation": "LeakyRelu", "activation_params": [0.1]}),
    Case("NhwcMaxPool", [u8(2, 7, 6, 4)], {0: PICTURE}, {"kernel_shape": [3, 2], "strides": [2, 2]}),
    Case("QLinearConv", QCONV, {0: PICTURE}, {"channels_last": 1, "strides": [2, 2]}, tolerance=1),
    Case("QLinearAveragePool", [u8(2, 7, 6, 4), scale(0.02), zero(120), scale(0.03), zero(110)], {0: PICTURE}, {"channels_last": 1, "kernel_shape": [2, 2]}, tolerance=1),
    Case("QLinearGlobalAveragePool", [u8(2, 7, 6, 4), scale(0.02), zero(120), scale(0.03), zero(110)], {0: PICTURE}, {"channels_last": 1}, tolerance=1),
    # norms
    Case("SkipLayerNormalization", [f32(2, 3, 4), f32(2, 3, 4), f32(4), f32(4), f32(4)], {0: TEXT, 1: TEXT}, outputs="y - - sum"),
    Case("SkipLayerNormalization", [f32(2, 3, 4), f32(1, 3, 4), f32(4)], {0: TEXT}),
    Case("SkipSimplifiedLayerNormalization", [f32(2, 3, 4), f32(2, 3, 4), f32(4), f32(4)], {0: TEXT, 1: TEXT}, outputs="y - - sum"),
    Case("GatedRMSNorm", [f32(2, 3, 8), f32(4), f32(2, 3, 8)], {0: TEXT, 2: TEXT}),
    Case("GatedRMSNorm", [f32(2, 3, 8), f32(8), f32(2, 3, 8)], {0: TEXT, 2: TEXT}, {"activation": "sigmoid"}),
    Case("GroupNorm", [f32(2, 5, 6, 8), *GAINS], {0: PICTURE}, {"groups": 2, "activation": 1}),
    Case("GroupNorm", [f32(2, 8, 5, 6), *GAINS], {0: "batch _ height width"}, {"groups": 4, "activation": 0, "channels_last": 0}),
    Case("GroupNorm", [f16(2, 5, 6, 8), *GAINS], {0: PICTURE}, {"groups": 2, "activation": 1}, tolerance=1e-2),
    Case("SkipGroupNorm", [f32(2, 5, 6, 8), *GAINS, f32(2, 5, 6, 8), f32(8)], {0: PICTURE, 3: PICTURE}, {"groups": 2, "activation": 1}, "y sum"),
    Case("SkipGroupNorm", [f32(2, 5, 6, 8), *GAINS, f32(2, 8)], {0: PICTURE, 3: "batch _"}, {"groups": 2, "activation": 0}),
    Case("SkipGroupNorm", [f32(2, 8, 5, 6), *GAINS, f32(2, 8, 1, 1), f32(8)], {0: "batch _ _ _", 3: "batch _ _ _"}, {"groups": 2, "activation": 1, "channels_last": 0}),
    Case("SkipGroupNorm", [f32(2, 8, 5, 6), *GAINS, f32(2, 5, 6, 8)], {0: "batch _ _ _", 3: "batch _ _ _"}, {"groups": 2, "activation": 1, "channels_last": 0}),
    Case("EmbedLayerNormalization", [IDS, SEGMENTS, *TABLES, MASK], {**TOKENS, 7: "batch seq"}, {"epsilon": 1e-5}, "y mask sum"),
    Case("EmbedLayerNormalization", [IDS, None, *TABLES[:2], None, *TABLES[3:], None, PLACES], {0: "batch seq", 8: "batch seq"}, outputs="y mask"),
    Case("EmbedLayerNormalization", [IDS, SEGMENTS, *TABLES], TOKENS, outputs="y mask"),
    # codes
    Case("QEmbedLayerNormalization", [IDS, SEGMENTS, *CODES, MASK, *PARAMETERS], {**TOKENS, 7: "batch seq"}, outputs="y mask"),
    Case("MatMulIntegerToFloat", [u8(2, 3, 4), i8(4, 5), scale(0.02), scale(0.03), zero(120), zero(3, np.int8)], {0: TEXT}),
    Case("MatMulIntegerToFloat", [u8(3, 4), i8(4, 5), scale(0.02), np.abs(f32(5)), zero(120), None, f32(5)], {0: "n _"}, tolerance=1e-3),
    Case("MatMulIntegerToFloat", [u8(3, 4), i8(4, 5), scale(0.02), scale(0.03), zero(120), zero(3, np.int8), f32(5)], {0: "n _", 2: "", 4: ""}),
    Case("DynamicQuantizeMatMul", [f32(2, 3, 4), i8(4, 5), scale(0.03), zero(0, np.int8), f32(5)], {0: TEXT}, tolerance=2e-2),
    Case("DynamicQuantizeMatMul", [f32(2, 3, 4), u8(4, 5), np.abs(f32(5)) / 50, u8(5)], {0: TEXT}, tolerance=2e-2),
    Case("QAttention", [u8(2, 3, 8), i8(8, 24), f32(24), scale(0.02), scale(0.03), None, zero(120), zero(3, np.int8)], {0: TEXT}, {"num_heads": 2}),
    Case("QAttention", [u8(2, 3, 8), i8(8, 24), f32(24), scale(0.02), scale(0.03), i32(3, 2), zero(120), zero(0, np.int8)], {0: TEXT, 5: "batch"}, {"num_heads": 2}),
    Case("QAttention", [u8(2, 3, 8), i8(8, 24), f32(24), scale(0.02), scale(0.03), None, zero(120), zero(0, np.int8), f32(2, 2, 2, 4, 4)], {0: TEXT, 8: "_ batch _ past _"}, {"num_heads": 2, "unidirectional": 1}, "y present"),
    Case("QLinearReduceMean", [u8(2, 3, 4), scale(0.02), zero(120), scale(0.03), zero(110)], {0: TEXT}, {"axes": [1], "keepdims": 0}, tolerance=1),
    Case("MulInteger", [u8(3), zero(3), u8(3), zero(5)], {0: "a", 2: "a"}),
    Case("ReduceSumInteger", [u8(3, 4)], {0: "a b"}, {"axes": [1], "keepdims": 0}),
]  # fmt: skip

# What onnxruntime understands and the table of operators does not: a step that is left out.
LOOSE = [Case("Range", [np.array(1, np.int64), np.array(6, np.int64)], {0: ""})]

# Operators that onnxruntime has no kernel for on the CPU: their NumPy meaning alone says what they mean.
ELSEWHERE = {
    "BiasAdd", "BiasSplitGelu", "BiasDropout", "BiasSoftmax", "ComplexMul", "ComplexMulConj", "FusedMatMulActivation", "GemmFastGelu",
    "GroupNorm", "SkipGroupNorm", "IsAllFinite", "MulInteger", "NhwcConv", "NhwcFusedConv", "QLinearReduceMean",
    "ReduceSumInteger", "SwiGLU", "TorchEmbedding", "TransposeMatMul",
}  # fmt: skip
NAMES = [f"{case.op}_{index}" for index, case in enumerate(CASES)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)
def test_what_they_are_spelt_as_means_the_same(index: int) -> None:
    case, name = CASES[index], NAMES[index]
    proto, feeds = model_of({name: case}), feeds_of(name, case)
    whole, expected = meaning(proto, feeds)
    graph = import_model(proto)
    verify(graph)
    assert f"com.microsoft::{case.op}" not in {
        node.op for node in graph.nodes
    } or case.op.startswith("QLinear")
    assert [value.type for value in graph.outputs] == [value.type for value in whole.outputs]
    assert [value.name for value in graph.outputs] == [value.name for value in whole.outputs]
    for found, wanted in zip(run(graph, feeds).values(), expected, strict=True):
        assert_close(found, wanted, case)


@pytest.mark.parametrize(
    "case",
    [*LOOSE, *(case for case in CASES if case.op not in ELSEWHERE)],
    ids=lambda case: case.op,
)
def test_they_agree_with_onnxruntime(case: Case) -> None:
    proto, feeds = model_of({"c": case}), feeds_of("c", case)
    expected = by_onnxruntime(proto, feeds)
    for found, wanted in zip(run(import_model(proto), feeds).values(), expected, strict=True):
        assert_close(found, wanted, case)


@pytest.mark.parametrize("is_open", [False, True])
def test_they_run_natively_whatever_is_known(is_open: bool, tmp_path: Path) -> None:
    assert_native(dict(zip(NAMES, CASES, strict=True)), tmp_path, is_open=is_open)


def test_every_converter_has_a_case() -> None:
    names = {f"com.microsoft::{case.op}" for case in CASES}
    assert {name for name in CONTRIB if name.startswith("com.microsoft::")} - names == set()


def test_what_they_cannot_say_is_refused() -> None:
    case = Case("FusedGemm", [f32(3, 4), f32(4, 5), f32(5)], {0: "n _"}, {"activation": "Magic"})
    with pytest.raises(InvalidModel, match="FusedGemm node 'c': activation 'Magic' is not known"):
        import_model(model_of({"c": case}))

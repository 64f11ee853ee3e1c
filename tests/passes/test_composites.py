"""Composite operators of the standard run natively and mean what they meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.importers.single_nodes import Case, assert_close, assert_native, feeds_of, model_of
from tests.ops.beside_onnxruntime import by_onnxruntime, f32
from tuili import compile as compile_model
from tuili import load
from tuili.errors import InvalidArgument
from tuili.importers.onnx import import_model
from tuili.ops.interpret import run

OPSET = 20


def case(op: str, inputs: list[Any], fed: dict[int, str], **attrs: Any) -> Case:
    return Case(op, inputs, fed, attrs, domain="")


def ints(*items: int) -> Any:
    return np.array(items, np.int64)


def one(item: int) -> Any:
    return np.array(item, np.int64)


HANN = np.hanning(8).astype(np.float32)
CASES = {
    "STFT": case("STFT", [f32(2, 50), one(3), HANN, one(8)], {0: "batch time"}),
    "STFT of all frequencies": case(
        "STFT", [f32(2, 50, 1), one(4), None, one(10)], {0: "batch time _"}, onesided=0
    ),
    "STFT of a complex signal": case(
        "STFT", [f32(2, 30, 2), one(4), HANN], {0: "batch time _"}, onesided=0
    ),
    "ReverseSequence": case(
        "ReverseSequence", [f32(4, 3, 2), ints(4, 1, 2)], {0: "time batch _", 1: "batch"}
    ),
    "ReverseSequence, longer than there is room": case(
        "ReverseSequence", [f32(4, 3, 2), ints(9, 0, 4)], {0: "time batch _", 1: "batch"}
    ),
    "ReverseSequence, batch first": case(
        "ReverseSequence",
        [f32(3, 4), ints(1, 4, 3)],
        {0: "batch time", 1: "batch"},
        batch_axis=0,
        time_axis=1,
    ),
    "ReverseSequence of rows, open in time and batch": case(
        "ReverseSequence", [f32(5, 3, 4, 2), ints(5, 0, 3)], {0: "time batch _ _", 1: "batch"}
    ),
    "Col2Im": case("Col2Im", [f32(2, 12, 20), ints(6, 5), ints(2, 2)], {0: "batch _ _"}),
    "Col2Im, all at once": case(
        "Col2Im",
        [f32(2, 18, 6), ints(7, 8), ints(3, 3)],
        {0: "batch _ _"},
        strides=[2, 3],
        pads=[1, 0, 0, 1],
        dilations=[2, 1],
    ),
    "Col2Im of a line": case(
        "Col2Im", [f32(2, 6, 4), ints(10), ints(3)], {0: "batch _ _"}, strides=[2]
    ),
    "AffineGrid": case("AffineGrid", [f32(2, 2, 3), ints(2, 3, 4, 5)], {0: "_ _ _"}),
    "AffineGrid to the corners": case(
        "AffineGrid", [f32(2, 2, 3), ints(2, 3, 4, 5)], {0: "_ _ _"}, align_corners=1
    ),
    "AffineGrid to the corners of one row": case(
        "AffineGrid", [f32(2, 2, 3), ints(2, 3, 1, 5)], {0: "_ _ _"}, align_corners=1
    ),
    "AffineGrid of a volume": case("AffineGrid", [f32(2, 3, 4), ints(2, 1, 2, 3, 4)], {0: "_ _ _"}),
    "MeanVarianceNormalization": case(
        "MeanVarianceNormalization", [f32(2, 3, 4, 5)], {0: "batch _ height _"}
    ),
    "MeanVarianceNormalization of channels": case(
        "MeanVarianceNormalization", [f32(2, 3, 4)], {0: "batch _ _"}, axes=[1]
    ),
    "GlobalLpPool": case("GlobalLpPool", [f32(2, 3, 4, 5)], {0: "batch _ height _"}),
    "GlobalLpPool of absolutes": case("GlobalLpPool", [f32(2, 3, 7)], {0: "batch _ _"}, p=1),
    "MaxUnpool": case(
        "MaxUnpool",
        [f32(1, 2, 2, 3), ints(0, 3, 5, 13, 14, 16, 24, 27, 28, 36, 39, 41).reshape(1, 2, 2, 3)],
        {0: "batch _ _ _", 1: "batch _ _ _"},
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    "Gemm in f64": case(
        "Gemm",
        [f32(3, 4).astype(np.float64), f32(5, 4).astype(np.float64), f32(5).astype(np.float64)],
        {0: "batch _"},
        transB=1,
        alpha=0.5,
        beta=2.0,
    ),
    "NegativeLogLikelihoodLoss": case(
        "NegativeLogLikelihoodLoss", [f32(4, 5), ints(0, 4, 2, 2)], {0: "batch _", 1: "batch"}
    ),
    "NegativeLogLikelihoodLoss of a map, weighted, not reduced": case(
        "NegativeLogLikelihoodLoss",
        [f32(2, 3, 2), ints(0, 2, 1, 1).reshape(2, 2), np.abs(f32(3))],
        {0: "batch _ width", 1: "batch width"},
        reduction="none",
    ),
    "NegativeLogLikelihoodLoss, some labels ignored": case(
        "NegativeLogLikelihoodLoss",
        [f32(4, 5), ints(0, -1, 2, -1).astype(np.int32)],
        {0: "batch _", 1: "batch"},
        ignore_index=-1,
    ),
    "SoftmaxCrossEntropyLoss": case(
        "SoftmaxCrossEntropyLoss",
        [f32(4, 5), ints(0, 4, 2, 2)],
        {0: "batch _", 1: "batch"},
        reduction="sum",
    ),
    "SoftmaxCrossEntropyLoss of a map, weighted, a label ignored": case(
        "SoftmaxCrossEntropyLoss",
        [f32(2, 3, 2), ints(0, 2, 1, 1).reshape(2, 2), np.abs(f32(3))],
        {0: "batch _ width", 1: "batch width"},
        ignore_index=2,
    ),
    "GridSample of a volume": case(
        "GridSample",
        [f32(2, 2, 3, 4, 5), f32(2, 2, 3, 2, 3)],
        {0: "batch _ depth height width", 1: "batch _ _ _ _"},
        padding_mode="reflection",
    ),
    "GridSample of a volume by cubes": case(
        "GridSample",
        [f32(2, 2, 3, 4, 5), f32(2, 2, 3, 2, 3)],
        {0: "batch _ depth height width", 1: "batch _ _ _ _"},
        mode="cubic",
    ),
}

# Newer than onnxruntime's: beside their meaning in NumPy only.
NEWEST = 24
WRITES = {
    "rows": case(
        "TensorScatter",
        [f32(2, 3, 6, 4), f32(2, 3, 2, 4), ints(1, 4)],
        {0: "batch _ past _", 1: "batch _ new _", 2: "batch"},
    ),
    "from the beginning": case(
        "TensorScatter", [f32(2, 6, 4), f32(2, 2, 4)], {0: "batch past _", 1: "batch new _"}
    ),
    "around the end": case(
        "TensorScatter",
        [f32(2, 3, 6, 4), f32(2, 3, 4, 4), ints(3, 5)],
        {0: "batch _ past _", 1: "batch _ new _", 2: "batch"},
        mode="circular",
    ),
    "along the last axis": case(
        "TensorScatter",
        [f32(2, 3, 6), f32(2, 3, 2), ints(0, 4)],
        {0: "batch _ past", 1: "batch _ new", 2: "batch"},
        axis=-1,
    ),
    "behind the batch": case(
        "TensorScatter",
        [f32(2, 6, 3, 2), f32(2, 1, 3, 2), ints(5, 0)],
        {0: "batch past _ _", 1: "batch new _ _", 2: "batch"},
        axis=1,
    ),
}


@pytest.mark.parametrize("is_open", [False, True])
def test_rows_of_a_cache_are_written_natively(is_open: bool, tmp_path: Path) -> None:
    names = {name.replace(" ", "_"): case for name, case in WRITES.items()}
    assert_native(names, tmp_path, is_open=is_open, opset=NEWEST)


def test_a_row_outside_of_the_cache_is_said(tmp_path: Path) -> None:
    outside = WRITES["rows"]._replace(inputs=[f32(2, 3, 6, 4), f32(2, 3, 2, 4), ints(1, 5)])
    artifact = compile_model(model_of({"c": outside}, opset=NEWEST), tmp_path / "m.tuili")
    with pytest.raises(InvalidArgument, match="out of range"):
        load(artifact.path).run(feeds_of("c", outside))


@pytest.mark.parametrize("is_open", [False, True])
def test_they_run_natively_whatever_is_known(is_open: bool, tmp_path: Path) -> None:
    names = {name.replace(" ", "_").replace(",", ""): case for name, case in CASES.items()}
    assert_native(names, tmp_path, is_open=is_open, opset=OPSET)


# onnxruntime has no cubes, refuses long lengths, and has one row at 1, PyTorch in the middle.
APART = {
    "GridSample of a volume by cubes",
    "ReverseSequence, longer than there is room",
    "AffineGrid to the corners of one row",
}


@pytest.mark.parametrize("name", [name for name in CASES if name not in APART])
def test_their_meaning_is_that_of_onnxruntime(name: str) -> None:
    proto, feeds = model_of({"c": CASES[name]}, opset=OPSET), feeds_of("c", CASES[name])
    (expected,) = by_onnxruntime(proto, feeds)
    (found,) = run(import_model(proto), feeds).values()
    assert_close(found, expected, CASES[name])

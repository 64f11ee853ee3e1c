"""Pools agree with the operators' meaning, blocked and plain, of every rank."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import Case, Cases
from tests.codegen.kernels.conv_cases import check, targets_here, window_node
from tuili.codegen.targets import Target
from tuili.tensors import DType

CASES = {
    "3x3 stride 2": (
        (1, 32, 12, 30),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "2x2": ((2, 19, 9, 9), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "ceil": ((1, 16, 9, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    # The last window of each axis sticks out: open sizes once took it to be inside.
    "ceil on both axes": (
        (2, 16, 32, 32),
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ),
    "ceil with pads": (
        (1, 16, 9, 10),
        {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 1, 1], "ceil_mode": 1},
    ),
    "asymmetric": ((1, 16, 8, 9), {"kernel_shape": [2, 4], "pads": [1, 0, 0, 3]}),
    "dilated": (
        (1, 16, 12, 13),
        {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "same": ((1, 16, 7, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "1-D": ((2, 17, 33), {"kernel_shape": [4], "strides": [3], "pads": [1, 2]}),
}  # fmt: skip

kinds = pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "AveragePool with padding"])
cases = pytest.mark.parametrize("case", CASES)


def _attrs(kind: str, attrs: dict[str, object]) -> dict[str, object]:
    return {**attrs, "count_include_pad": 1} if kind.endswith("padding") else attrs


@pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)
@kinds
@cases
def test_blocked(case: str, kind: str, target: Target) -> None:
    shape, attrs = CASES[case]
    node, values = window_node(kind.split(maxsplit=1)[0], target, shape, _attrs(kind, attrs))
    check(node, target, values, family="pool")


@kinds
@cases
def test_blocked_symbolic(case: str, kind: str) -> None:
    target = targets_here()[0]
    shape, attrs = CASES[case]
    axes = "NW" if len(shape) == 3 else "NHW"
    node, values = window_node(
        kind.split(maxsplit=1)[0], target, shape, _attrs(kind, attrs), axes=axes
    )
    check(node, target, values, family="pool")


@kinds
@cases
def test_plain(case: str, kind: str) -> None:
    target = targets_here()[0]
    shape, attrs = CASES[case]
    node, values = window_node(
        kind.split(maxsplit=1)[0], target, shape, _attrs(kind, attrs), layout=""
    )
    check(node, target, values, family="pool_plain")


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.F16])
def test_plain_3d_and_types(op: str, dtype: DType) -> None:
    target = targets_here()[0]
    attrs = {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2], "pads": [0, 1, 1, 1, 1, 0]}
    node, values = window_node(op, target, (2, 3, 4, 7, 6), attrs, layout="", dtype=dtype)
    check(node, target, values, tolerance=2e-3 if dtype is DType.F16 else 1e-5)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_plain_rows_longer_than_a_piece(op: str) -> None:
    target, attrs = targets_here()[0], {"kernel_shape": [2, 5], "pads": [1, 2, 0, 2]}
    node, values = window_node(op, target, (1, 2, 3, 600), attrs, layout="")
    check(node, target, values)


def test_a_plain_maximum_keeps_what_is_no_number() -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 3, 20)).astype(np.float32)
    x[0, 0, 1, 7] = np.nan
    case = Case("MaxPool", [x], {"kernel_shape": (2, 3)})
    Cases({"one": case}, targets_here()[0]).check("one")


def test_integers() -> None:
    target = targets_here()[0]
    node, values = window_node(
        "MaxPool", target, (1, 3, 8, 8), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, layout="",
        dtype=DType.I8,
    )  # fmt: skip
    check(node, target, values)


@pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("blocked", [True, False])
@pytest.mark.parametrize("shape", [(2, 19, 7, 7), (1, 16, 5), (1, 3, 1, 1)])
def test_global(shape: tuple[int, ...], blocked: bool, op: str, target: Target) -> None:
    node, values = window_node(op, target, shape, {}, layout=None if blocked else "")
    check(node, target, values)

"""Scales beside data: quantization, batch normalization, norms along one axis."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const
from tuili.tensors import DType

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.1, 1, shape).astype(np.float32)


CASES: dict[str, Case] = {}
CASES["q"] = Case(
    "QuantizeLinear", [floats(3, 50) * 3, Const(np.float32(0.02)), Const(np.uint8(128))]
)
CASES["qrt"] = Case(
    "QuantizeLinear", [floats(3, 50) * 3, np.array(0.02, np.float32), np.array(-3, np.int8)]
)
CASES["qnz"] = Case("QuantizeLinear", [floats(3, 50) * 300, Const(np.float32(1.5))])
CASES["qax"] = Case(
    "QuantizeLinear",
    [floats(3, 5, 7) * 3, Const(positive(5)), Const(RANDOM.integers(-5, 5, 5).astype(np.int8))],
    {"axis": 1},
)
CASES["q16"] = Case(
    "QuantizeLinear",
    [
        floats(3, 5, 7) * 3,
        Const(positive(3) * 0.01),
        Const(RANDOM.integers(0, 500, 3).astype(np.uint16)),
    ],
    {"axis": 0},
)
CASES["dq"] = Case(
    "DequantizeLinear",
    [
        RANDOM.integers(0, 255, (3, 50)).astype(np.uint8),
        Const(np.float32(0.02)),
        Const(np.uint8(128)),
    ],
)
CASES["dqax"] = Case(
    "DequantizeLinear",
    [
        RANDOM.integers(-100, 100, (3, 5, 7)).astype(np.int8),
        positive(5),
        RANDOM.integers(-5, 5, 5).astype(np.int8),
    ],
    {"axis": -2},
)
SHORTS = {np.uint16: 40_000, np.int16: -7}  # and a zero point
LIMITS = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.5, 1.5, -0.5, -2.5, 7e4, -7e4])
for dtype, zero in SHORTS.items():
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    numbers = np.concatenate([LIMITS, RANDOM.uniform(-1e5, 1e5, 92)]).astype(np.float32)
    codes = np.concatenate([[low, high, 0], RANDOM.integers(low, high, 100)]).astype(dtype)
    name = np.dtype(dtype).name
    for scale in (1.0, 0.37):
        given = [Const(np.float32(scale)), Const(dtype(zero))]
        CASES[f"q {name} {scale}"] = Case("QuantizeLinear", [numbers, *given])
        CASES[f"dq {name} {scale}"] = Case("DequantizeLinear", [codes, *given])
    CASES[f"cast {name}"] = Case("Cast", [codes], {"to": DType.F32})
CASES["dqi32"] = Case(
    "DequantizeLinear",
    [RANDOM.integers(-(10**6), 10**6, (3, 5)).astype(np.int32), positive(5)],
    {"axis": 1},
)
CASES["dyn"] = Case("DynamicQuantizeLinear", [floats(5, 100)], outputs=3)
CASES["bn"] = Case(
    "BatchNormalization",
    [floats(2, 5, 3, 4), Const(floats(5)), Const(floats(5)), Const(floats(5)), Const(positive(5))],
    tolerance=1e-5,
)
CASES["bnrt"] = Case(
    "BatchNormalization",
    [floats(2, 5, 3, 4), floats(5), floats(5), floats(5), positive(5)],
    tolerance=1e-5,
)
CASES["bn2"] = Case(
    "BatchNormalization",
    [floats(2, 5), floats(5), floats(5), floats(5), positive(5)],
    tolerance=1e-5,
)
CASES["lp1"] = Case("LpNormalization", [floats(2, 5, 3)], {"p": 1, "axis": 1})
CASES["lp2"] = Case("LpNormalization", [floats(2, 5, 3)], {"p": 2})
CASES["hard"] = Case("Hardmax", [floats(2, 5, 3)], {"axis": 1})
CASES["lrn"] = Case(
    "LRN", [floats(2, 7, 3, 4)], {"size": 3, "alpha": 0.1, "bias": 2.0}, tolerance=1e-5
)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

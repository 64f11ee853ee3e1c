"""Reductions over every pattern of axes and several element types."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const
from tuili.codegen.targets import Target

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Const:
    return Const(np.array(numbers, np.int64))


CASES: dict[str, Case] = {}
for op in ("Sum", "Mean", "L1", "L2", "SumSquare", "Prod", "Max", "Min", "LogSumExp"):
    for ax in ((-1,), (0,), (1,), (0, 2), (1, 2), (0, 1, 2), (1, 3)):
        CASES[f"{op}{ax}"] = Case(
            "Reduce" + op,
            [floats(3, 4, 5, 37), whole(*ax)],
            {"keepdims": int(len(ax) % 2)},
            tolerance=2e-5,
        )
    CASES[f"{op}all"] = Case("Reduce" + op, [floats(3, 4, 5), None], tolerance=1e-5)
    CASES[f"{op}dyn"] = Case(
        "Reduce" + op, [floats(3, 4, 50), whole(1)], dims={0: ["A", "B", "C"]}, tolerance=1e-5
    )
    CASES[f"{op} short rows"] = Case("Reduce" + op, [floats(7, 11, 2), whole(2)], tolerance=1e-5)
    if op != "LogSumExp":
        CASES[f"{op}i32"] = Case(
            "Reduce" + op, [np.arange(1, 25).reshape(2, 3, 4).astype(np.int32), whole(1)]
        )
    CASES[f"{op}64"] = Case("Reduce" + op, [floats(2, 3, 4).astype(np.float64), whole(1)])
    for ax, size in (((2,), 75), ((1,), 83), ((1,), 301), ((0, 2), 37), ((0, 1), 128), ((2,), 3)):
        CASES[f"{op}64 {ax} {size}"] = Case(
            "Reduce" + op, [floats(3, 40, size).astype(np.float64), whole(*ax)], tolerance=1e-12
        )
    for size in (20, 41):  # results side by side, and in strips
        CASES[f"{op}beside{size}"] = Case(
            "Reduce" + op, [floats(2, size, 600), whole(1)], tolerance=2e-5
        )
    CASES[f"{op}strips"] = Case(
        "Reduce" + op, [floats(3, 2, 33, 1030), whole(0, 2)], tolerance=5e-5
    )
    if op != "LogSumExp":
        CASES[f"{op}b"] = Case(
            "Reduce" + op,
            [floats(2, 36, 5, 7), whole(2, 3)],
            layouts=[0],
            blocked=True,
            tolerance=1e-5,
        )
CASES["logsum"] = Case("ReduceLogSum", [abs(floats(3, 40)), whole(1)])
CASES["maxbool"] = Case("ReduceMax", [floats(3, 4) > 0, whole(1)])
CASES["gap"] = Case("GlobalAveragePool", [floats(3, 6, 7, 9)])
CASES["gmp"] = Case("GlobalMaxPool", [floats(3, 6, 7, 9)], layouts=[0], blocked=True)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)


@pytest.mark.parametrize("target", HERE, ids=lambda each: each.name)
@pytest.mark.parametrize(
    ("shape", "axis"), [((20_011, 19), 0), ((20_011, 257), 0), ((3, 70_001), 1)]
)
def test_rounding_of_long_sums_grows_with_pieces_only(
    target: Target, shape: tuple[int, ...], axis: int
) -> None:
    """All numbers are alike, so that every step of a sum rounds the same way."""
    case = Case("ReduceMean", [np.full(shape, np.float32(0.1)), whole(axis)])
    (got,) = Cases({"mean": case}, target).got.values()
    np.testing.assert_allclose(got, np.float32(0.1), rtol=2e-5)

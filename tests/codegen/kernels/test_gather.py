"""Gather and Scatter by rows, elements and positions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Case, Cases, Const

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


CASES: dict[str, Case] = {}
CASES["gather0"] = Case("Gather", [floats(10, 5, 7), np.array([[1, -1], [3, 9]])])
CASES["gather1"] = Case("Gather", [floats(10, 5, 7), np.array([1, -1, 3], np.int32)], {"axis": 1})
CASES["gather2"] = Case(
    "Gather",
    [floats(10, 5, 7), np.array([1, -1, 3], np.int32)],
    {"axis": 2},
    dims={0: ["A", "B", "C"], 1: ["D"]},
)
CASES["gatherone"] = Case(
    "Gather", [floats(10, 5, 7), Const(np.array(-2))], {"axis": 1}, dims={0: ["A", "B", 7]}
)
# Old keys, a step of three tokens of which not all are real, and what lies beyond.
STEP = [floats(2, 3, 3, 5), np.array([[2], [4]]), np.array([[3], [2]])]
CASES["cache grows"] = Case("CacheRows", [floats(2, 3, 4, 5), *STEP, Const(np.array([7]))])
CASES["cache has room"] = Case("CacheRows", [floats(2, 3, 9, 5), *STEP, Const(np.array([9]))])
CASES["cache is new"] = Case("CacheRows", [None, *STEP, Const(np.array([6]))])
CASES["ge"] = Case(
    "GatherElements", [floats(4, 5, 6), RANDOM.integers(-4, 4, (3, 2, 5))], {"axis": 0}
)
CASES["ge2"] = Case(
    "GatherElements", [floats(4, 5, 6), RANDOM.integers(-6, 6, (3, 2, 9))], {"axis": 2}
)
CASES["gnd"] = Case("GatherND", [floats(4, 5, 6), RANDOM.integers(-4, 4, (3, 2, 2))])
CASES["gndb"] = Case(
    "GatherND", [floats(4, 5, 6), RANDOM.integers(-5, 5, (4, 3, 1))], {"batch_dims": 1}
)
CASES["se"] = Case(
    "ScatterElements", [floats(4, 5), np.array([[0, 1, 2, -1]] * 1), floats(1, 4)], {"axis": 1}
)
for red in ("add", "mul", "max", "min"):
    CASES["se" + red] = Case(
        "ScatterElements",
        [floats(4, 5), np.array([[0, 1, 1, -1], [0, 0, 0, 0]]), floats(2, 4)],
        {"axis": 1, "reduction": red},
    )
    CASES["sei" + red] = Case(
        "ScatterElements",
        [
            np.arange(20).reshape(4, 5),
            np.array([[0, 1, 1, -1], [0, 0, 0, 0]]),
            RANDOM.integers(-9, 9, (2, 4)),
        ],
        {"axis": 0, "reduction": red},
    )
CASES["snd"] = Case("ScatterND", [floats(8, 4), np.array([[4], [3], [-7]]), floats(3, 4)])
CASES["snda"] = Case(
    "ScatterND", [floats(8, 4), np.array([[4, 1], [3, 2], [4, 1]]), floats(3)], {"reduction": "add"}
)


@pytest.fixture(scope="module", params=[BEST], ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

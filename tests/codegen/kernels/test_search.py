"""ArgMax, ArgMin, TopK and cumulative sums."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Const:
    return Const(np.array(numbers, np.int64))


CASES: dict[str, Case] = {}
x = floats(4, 5, 6)
x[1, 2, 3] = np.nan
for op in ("ArgMax", "ArgMin"):
    for l in (0, 1):
        CASES[f"{op}{l}"] = Case(
            op, [np.round(floats(4, 5, 6))], {"axis": 1, "select_last_index": l}
        )
        CASES[f"{op}n{l}"] = Case(op, [x], {"axis": 2, "select_last_index": l, "keepdims": 0})
wide = floats(2, 5, 150)  # more lines side by side than are walked together
wide[0, 2:4, 70] = wide[1, 0, 149] = np.nan
for l in (0, 1):
    CASES[f"ArgMax of many lines {l}"] = Case("ArgMax", [wide], {"axis": 1, "select_last_index": l})
for kind in (np.float32, np.float64, np.int64, np.uint8):
    for op in ("ArgMax", "ArgMin"):
        for l in (0, 1):
            lines = RANDOM.integers(0, 100, (3, 2100)).astype(kind)  # more than a block, many alike
            name = f"{op} of {np.dtype(kind).name} in blocks {l}"
            CASES[name] = Case(op, [lines], {"axis": 1, "select_last_index": l})
            CASES[f"short {name}"] = Case(op, [lines[:, :45]], {"axis": 1, "select_last_index": l})
for l in (0, 1):
    lines = floats(4, 2500)
    lines[1, [700, 1500, 2499]] = lines[2, 0] = np.nan
    lines[3] = -np.inf
    CASES[f"ArgMax of a NaN in blocks {l}"] = Case(
        "ArgMax", [lines], {"axis": 1, "select_last_index": l}, dims={0: ["N", "M"]}
    )
CASES["cumsum of many lines"] = Case("CumSum", [floats(2, 5, 150), Const(np.array(1))])
CASES["open lines"] = Case("ArgMin", [floats(2, 5, 70)], {"axis": 1}, dims={0: ["A", "B", "C"]})
for e, rv in ((0, 0), (0, 1), (1, 0), (1, 1)):
    CASES[f"cumsum{e}{rv}"] = Case(
        "CumSum", [floats(3, 4, 5), whole(1)], {"exclusive": e, "reverse": rv}
    )
CASES["cumi"] = Case("CumSum", [np.arange(12, dtype=np.int32).reshape(3, 4), Const(np.array(-1))])
CASES["topk"] = Case("TopK", [np.round(floats(4, 50) * 3), whole(7)], outputs=2)
CASES["topks"] = Case(
    "TopK", [np.round(floats(4, 50, 3) * 3), whole(7)], {"largest": 0, "axis": 1}, outputs=2
)
CASES["topkall"] = Case(
    "TopK", [RANDOM.integers(0, 5, (4, 5)).astype(np.int32), whole(5)], outputs=2
)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

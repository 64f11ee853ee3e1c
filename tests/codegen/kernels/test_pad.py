"""Pad in every mode, with crops, symbolic sizes and blocked layouts."""

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
for mode in ("constant", "reflect", "edge", "wrap"):
    CASES["pad" + mode] = Case(
        "Pad", [floats(2, 3, 7, 9), whole(0, 0, 2, 3, 0, 0, 1, 4)], {"mode": mode}
    )
    CASES["padneg" + mode] = Case(
        "Pad", [floats(2, 3, 7, 9), whole(0, 1, -2, 3, 0, 0, 1, -2)], {"mode": mode}
    )
    CASES["padb" + mode] = Case(
        "Pad",
        [floats(2, 20, 7, 9), whole(0, 0, 2, 3, 0, 0, 1, 4)],
        {"mode": mode},
        layouts=[0],
        blocked=True,
    )
    CASES["paddyn" + mode] = Case(
        "Pad",
        [floats(2, 3, 7, 9), whole(2, 3, 1, 4), None, whole(2, 3)],
        {"mode": mode},
        dims={0: ["A", "B", "C", "D"]},
    )
CASES["padv"] = Case("Pad", [floats(2, 3), whole(1, 1, 1, 1), np.array(7, np.float32)])
CASES["padi8"] = Case(
    "Pad",
    [np.arange(6, dtype=np.int8).reshape(2, 3), whole(1, 1, 1, 1), Const(np.array(7, np.int8))],
)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

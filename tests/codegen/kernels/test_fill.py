"""Tensors made from little: fills, ranges, diagonals, triangles."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Case, Cases, Const

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Const:
    return Const(np.array(numbers, np.int64))


CASES: dict[str, Case] = {}
CASES["cos"] = Case("ConstantOfShape", [whole(3, 4)], {"value": np.array([2.5], np.float32)})
CASES["range"] = Case(
    "Range",
    [
        Const(np.array(2.0, np.float32)),
        Const(np.array(9.0, np.float32)),
        Const(np.array(1.5, np.float32)),
    ],
)
CASES["rangei"] = Case("Range", [Const(np.array(2)), Const(np.array(900)), Const(np.array(3))])
CASES["eye"] = Case("EyeLike", [floats(4, 5)], {"k": 1})
CASES["onehot"] = Case(
    "OneHot", [np.array([[0, 2], [-1, 5]]), Const(np.array(4)), floats(2)], {"axis": 1}
)
for u in (0, 1):
    CASES[f"tri{u}"] = Case("Trilu", [floats(2, 4, 5)], {"upper": u})
    for k in (2, 4, 5, 9, -3, -4, -9):
        CASES[f"trik{u} of {k}"] = Case("Trilu", [floats(3, 4, 5), np.array(k)], {"upper": u})
    CASES[f"trik{u}"] = Case("Trilu", [floats(2, 4, 5), np.array(-1)], {"upper": u})


@pytest.fixture(scope="module", params=[BEST], ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

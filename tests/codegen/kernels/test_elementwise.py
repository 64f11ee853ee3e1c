"""Elementwise kernels: broadcasting, types, symbolic dims that may be 1, blocked layouts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


CASES: dict[str, Case] = {
    "add": Case("Add", [floats(3, 5, 7), floats(3, 5, 7)]),
    "bias": Case("Add", [floats(3, 5, 7), floats(7)]),
    "outer": Case("Mul", [floats(3, 5, 7), floats(5, 1)]),
    "both": Case("Mul", [floats(3, 1, 7), floats(5, 1)]),
    "scalar": Case("Add", [floats(3, 5), Const(np.float32(2))]),
    "rank0": Case("Add", [floats(), floats()]),
    "dyn": Case("Add", [floats(3, 5), floats(3, 5)], dims={0: ["N", "M"], 1: ["N", "M"]}),
    "dynb": Case("Add", [floats(3, 5), floats(1, 5)], dims={0: ["N", "M"], 1: ["K", "M"]}),
    "dynb2": Case("Add", [floats(3, 1), floats(1, 5)], dims={0: ["N", "M"], 1: ["K", "P"]}),
    "gelu": Case("Gelu", [floats(1000)]),
    "less": Case("Less", [floats(100), floats(100)]),
    "where": Case("Where", [floats(33) > 0, floats(33), floats(1)]),
    "i64": Case("Add", [np.arange(10), np.arange(10)]),
    "blocked": Case(
        "Add", [floats(2, 32, 3, 5), floats(2, 32, 3, 5)], layouts=[0, 1], blocked=True
    ),
    "blockedc": Case(
        "Mul", [floats(2, 20, 3, 5), Const(floats(1, 20, 1, 1))], layouts=[0], blocked=True
    ),
    "blockedse": Case(
        "Mul", [floats(2, 20, 3, 5), floats(2, 20, 1, 1)], layouts=[0, 1], blocked=True
    ),
    "blockeds": Case("Mul", [floats(2, 20, 3, 5), floats(2, 1, 3, 5)], layouts=[0], blocked=True),
}


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

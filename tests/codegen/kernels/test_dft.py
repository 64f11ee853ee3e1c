"""DFT: every kind of length, both ways, of real and complex signals, along any axis."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import BEST, Case, Cases, Const

RANDOM = np.random.default_rng(0)
LENGTHS = (1, 32, 60, 62, 37, 74)  # powers, small factors, a large prime, twice one


def signal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def number(value: int) -> Const:
    return Const(np.array(value, np.int64))


CASES: dict[str, Case] = {}
for n in LENGTHS:
    for inverse in (0, 1):
        CASES[f"complex {n} {inverse}"] = Case("DFT", [signal(3, n, 2)], {"inverse": inverse})
    CASES[f"half {n}"] = Case("DFT", [signal(3, n, 1)], {"onesided": 1})
    CASES[f"back from half {n}"] = Case(
        "DFT", [signal(3, n // 2 + 1, 2), number(n)], {"onesided": 1, "inverse": 1}
    )
for length in (5, 12, 20, 41):
    CASES[f"cut or filled to {length}"] = Case(
        "DFT", [signal(2, 12, 3, 2), number(length), number(1)]
    )
    CASES[f"half, cut or filled to {length}"] = Case(
        "DFT", [signal(2, 12, 3, 1), number(length), number(-3)], {"onesided": 1}
    )
CASES["real, all frequencies"] = Case("DFT", [signal(11, 12, 1)])
CASES["real parts of a complex signal"] = Case("DFT", [signal(2, 12, 2)], {"onesided": 1})
CASES["as long as it comes"] = Case("DFT", [signal(2, 9, 2)], {"onesided": 1, "inverse": 1})
CASES["first axis"] = Case("DFT", [signal(12, 5, 7, 2), None, number(0)])
CASES["open lines"] = Case(
    "DFT", [signal(5, 16, 7, 2), None, number(1)], dims={0: ["A", 16, "B", 2]}
)


@pytest.fixture(scope="module", params=[BEST], ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)

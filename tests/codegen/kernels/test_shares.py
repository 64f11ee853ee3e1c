"""Tensor kernels give the same results when three threads share their grids."""

from __future__ import annotations

import pytest

from tests.codegen.compiled import BEST, Case, Cases
from tests.codegen.kernels import (
    test_elementwise,
    test_gather,
    test_movement,
    test_norm,
    test_pad,
    test_recurrent,
    test_softmax,
)
from tuili.codegen import run_function, run_steps

TABLES = (
    test_elementwise,
    test_gather,
    test_movement,
    test_norm,
    test_pad,
    test_recurrent,
    test_softmax,
)
CASES: dict[str, Case] = {
    f"{table.__name__.rpartition('_')[2]} {name}": case
    for table in TABLES
    for name, case in table.CASES.items()
}


@pytest.fixture(scope="module")
def cases() -> Cases:
    with pytest.MonkeyPatch.context() as patch:
        # Even the smallest step is worth sharing.
        for module in (run_steps, run_function):
            patch.setattr(module, "WORTH_FLOPS", 0)
            patch.setattr(module, "WORTH_BYTES", 0)
        return Cases(CASES, BEST, threads=3)


@pytest.mark.parametrize("name", CASES)
def test_shared_grids_give_the_same(cases: Cases, name: str) -> None:
    cases.check(name)

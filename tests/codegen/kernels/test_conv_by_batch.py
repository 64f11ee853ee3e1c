"""Convolutions of an open batch: the plan of every range of batches gives what is meant."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const
from tuili.codegen.kernels.conv.by_batch import STEPS

RANDOM = np.random.default_rng(0)
BATCHES = (1, STEPS[1] - 1, STEPS[1], STEPS[-1] - 1, STEPS[-1] + 1)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


WEIGHTS = Const(floats(128, 128, 3, 3) / 32)
CASES = {
    f"{batch} images": Case(
        "Conv",
        [floats(batch, 128, 7, 6), WEIGHTS, Const(floats(128))],
        {"pads": [1, 1, 1, 1]},
        {0: ["N", 128, 7, 6]},
        layouts=[0],
        blocked=True,
        tolerance=2e-5,
    )
    for batch in BATCHES
}


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_every_batch_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)


def test_there_are_several_plans_where_this_is_tested(cases: Cases) -> None:
    families = {family for family, _ in cases.library.program.families.values()}
    assert "conv_by_batch" in families


def test_threads_give_the_same(cases: Cases) -> None:
    shared = cases.library.run(cases.feeds, threads=3)
    assert all(np.array_equal(shared[name], found) for name, found in cases.got.items())

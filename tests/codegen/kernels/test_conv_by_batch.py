"""Convolutions of an open batch: the plan of every range of batches gives what is meant."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const
from tuili.codegen.kernels.conv.by_batch import STEPS

RANDOM = np.random.default_rng(0)
BATCHES = (1, STEPS[1] - 1, STEPS[1], STEPS[-1] - 1, STEPS[-1] + 1)
SMALL, LARGE = (7, 6), (28, 28)  # maps; the plans of large ones differ in order alone


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


WEIGHTS = {size: Const(floats(128, 128, 3, 3) / 32) for size in (SMALL, LARGE)}
CASES = {
    f"{batch} images of {size[0]}x{size[1]}": Case(
        "Conv",
        [floats(batch, 128, *size), WEIGHTS[size], Const(floats(128))],
        {"pads": [1, 1, 1, 1]},
        {0: ["N", 128, *size]},
        layouts=[0],
        blocked=True,
        tolerance=2e-5,
    )
    for batch, size in [*((batch, SMALL) for batch in BATCHES), (1, LARGE), (STEPS[1], LARGE)]
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


def test_plans_of_one_transform_share_its_weights(cases: Cases) -> None:
    weights = [np.sort(w.array, axis=None) for w in cases.library.program.weights]
    assert not any(np.array_equal(one, other) for one, other in combinations(weights, 2))

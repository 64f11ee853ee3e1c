"""LSTMs in codes: directions, lengths, peepholes, odd sizes, weights at the limits of bytes.

The first step of a network is exact in its codes on every target; later ones feed on activations,
whose last bit may move a code by one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import RUNNABLE, Case, Cases, Const, one_per
from tuili.codegen.kernels.quantized.dot import dots_for
from tuili.codegen.targets import Target, find_target

RANDOM = np.random.default_rng(0)
HERE = one_per(lambda t: dots_for(t, np.zeros(1, np.int8))[0].text, RUNNABLE)
LACKING = ("x86-64-avx512-vnni", "x86-64-avx512", "aarch64-dotprod", "aarch64")


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


def coded(
    *,
    time: int = 5,
    batch: int = 3,
    hidden: int = 20,
    directions: int = 1,
    weights: Any = np.int8,
    limit: int = 0,
    rare: bool = False,
    lengths: bool = False,
    states: bool = True,
    peepholes: bool = False,
    dims: Any = None,
    **attrs: Any,
) -> Case:
    """`limit`: all weights are that large; `rare`: some pairs of small ones are."""
    shape = (directions, hidden, 4 * hidden)
    codes = RANDOM.integers(-127, 128, shape) if not rare else RANDOM.integers(-40, 41, shape)
    if limit:
        codes = np.where(codes < 0, -limit, limit)
    if rare:
        codes[:, 4:6, ::7] = 127
    state = floats(directions, batch, hidden) if states else None
    # Steps of codes are small beside what moves one of them.
    scale = RANDOM.uniform(0.5, 1.5, (directions, 4 * hidden)) / (100 * hidden)
    values: list[Any] = [
        floats(time, batch, directions * 4 * hidden),
        Const(codes.astype(weights)),
        Const(scale.astype(np.float32)),
        np.array([time, 2, 4, 0, 3][:batch], np.int32) if lengths else None,
        state,
        None if state is None else floats(*state.shape),
        Const(floats(directions, 3 * hidden)) if peepholes else None,
    ]
    names = {0: [*dims, directions * 4 * hidden]} if dims else {}
    settings = {"hidden_size": hidden, **attrs}
    return Case("CodedLSTM", values, settings, names, outputs=3, tolerance=2e-4)


CASES: dict[str, Case] = {
    "one row": coded(batch=1, hidden=64),
    "three rows": coded(),
    "nine rows, odd sizes": coded(batch=9, hidden=19),
    "sums at the limits": coded(hidden=48, limit=127, batch=5),
    "a few pairs at the limits": coded(hidden=40, rare=True, batch=5),
    "wide weights": coded(weights=np.int16, limit=255, hidden=17),
    "reverse, lengths": coded(direction="reverse", lengths=True, batch=5),
    "both ways, lengths": coded(directions=2, direction="bidirectional", lengths=True, batch=5),
    "no state": coded(states=False),
    "peepholes": coded(peepholes=True),
    "coupled": coded(input_forget=1),
    "clip": coded(clip=0.2),
    "activations of each direction": coded(
        directions=2, direction="bidirectional",
        activations=("HardSigmoid", "Softsign", "Relu", "Sigmoid", "Tanh", "Tanh"),
    ),
    "sizes at run time": coded(dims=["T", "B"], batch=6, states=False),
}  # fmt: skip

# Few rows of many units: threads share each step.
SHARED: dict[str, Case] = {
    "one row": coded(batch=1, hidden=450),
    "three rows, odd sizes": coded(hidden=273, peepholes=True),
    "four rows, reverse": coded(hidden=232, batch=4, direction="reverse"),
    "any time, no state": coded(dims=["T", 4], batch=4, hidden=250, states=False),
    "without its last states": replace(coded(batch=1, hidden=450), outputs=1),
}


def portable(name: str) -> Target:
    """A target that this machine lacks, with its instructions written out in C."""
    flags = ("-DTL_PORTABLE", "-O1", *HERE[0].flags)
    return replace(find_target(name), machine=HERE[0].machine, flags=flags)


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param)


@pytest.fixture(scope="module", params=LACKING)
def elsewhere(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, portable(request.param))


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda threads: f"{threads} threads")
def shared(request: pytest.FixtureRequest) -> Cases:
    return Cases(SHARED, threads=request.param)


@pytest.mark.parametrize("name", SHARED)
def test_steps_that_threads_share_give_the_same(shared: Cases, name: str) -> None:
    shared.check(name)


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_operator_means(cases: Cases, name: str) -> None:
    cases.check(name)


@pytest.mark.parametrize("name", CASES)
def test_other_targets_give_what_the_operator_means(elsewhere: Cases, name: str) -> None:
    elsewhere.check(name)

"""Convolutions of each channel over volumes that are pictures agree with the operator's meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import HERE, Case, Cases, Const

RNG = np.random.default_rng(3)


def case(
    channels: int, taps: tuple[int, int, int], *, bias: bool = False, dims: Any = None, **attrs: Any
) -> Case:
    """Two volumes of five pictures."""
    x = RNG.standard_normal((10, channels, 7, 19)).astype(np.float32)
    weights = RNG.standard_normal((channels, 1, *taps)).astype(np.float32)
    inputs: list[Any] = [x, Const(weights), Const(np.array([2, 5]))]
    if bias:
        inputs.append(Const(RNG.standard_normal(channels).astype(np.float32)))
    open_dims = {0: dims} if dims else {}
    return Case("EachChannelOfFrames", inputs, attrs, open_dims, layouts=(0,), blocked=True)


AROUND: dict[str, Any] = {"depth_pads": (1, 1), "pads": (1, 1, 1, 1)}
CASES = {
    "around": case(32, (3, 3, 3), **AROUND),
    "part of a block, bias": case(20, (3, 3, 3), bias=True, **AROUND),
    "depth alone": case(16, (5, 1, 1), depth_pads=(2, 2)),
    "strided": case(16, (3, 3, 3), stride=2, strides=(2, 2), **AROUND),
    "dilated": case(16, (2, 2, 3), dilation=3, dilations=(2, 1), depth_pads=(2, 1)),
    "uneven": case(16, (2, 3, 2), depth_pads=(0, 1), pads=(0, 1, 2, 0)),
    "open": case(16, (3, 3, 3), dims=(10, 16, "H", "W"), **AROUND),
}


@pytest.fixture(scope="module", params=HERE, ids=lambda target: target.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    return Cases(CASES, request.param, threads=2)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_meaning(cases: Cases, name: str) -> None:
    cases.check(name)

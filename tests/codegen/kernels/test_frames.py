"""Frames beside its meaning: windows over pictures, plain and in blocks, at the ends and beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import Case, Cases, Const

RNG = np.random.default_rng(3)


def pictures(channels: int, frames: int = 10) -> Any:
    return RNG.standard_normal((frames, channels, 3, 5)).astype(np.float32)


def codes(channels: int) -> Any:
    return RNG.integers(0, 256, (10, channels, 3, 5), np.uint8)


TWO = Const(np.array([2, 5]))  # volumes of five frames
SIDE = {"taps": 3, "pads": (1, 1)}
CASES = {
    "side by side": Case("Frames", [pictures(3), TWO], SIDE),
    "blocked": Case("Frames", [pictures(32), TWO], SIDE, layouts=(0,), blocked=True),
    "strided": Case("Frames", [pictures(2), TWO], {"taps": 2, "stride": 2, "pads": (0, 1)}),
    "dilated": Case("Frames", [pictures(2), TWO], {"taps": 2, "dilation": 3, "pads": (2, 1)}),
    "cropped": Case("Frames", [pictures(2), TWO], {"pads": (-1, -2)}),
    "clamped, part of a block": Case(
        "Frames", [pictures(5), TWO], {"pads": (2, -1), "clamp": 1}, layouts=(0,), blocked=True
    ),
    "of codes": Case("Frames", [codes(3), TWO], {**SIDE, "fill": 117}),
    "of blocked codes": Case(
        "Frames", [codes(16), TWO], {**SIDE, "fill": 117}, layouts=(0,), blocked=True
    ),
    "open": Case("Frames", [pictures(3), TWO], SIDE, dims={0: (10, 3, "H", "W")}),
}


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases(CASES, threads=2)


@pytest.mark.parametrize("name", CASES)
def test_frames(cases: Cases, name: str):
    cases.check(name)

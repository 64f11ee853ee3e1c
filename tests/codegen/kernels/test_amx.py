"""Blocks in tile registers, on shapes that nobody chose; in plain C where there are no such."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.codegen.compiled import BEST
from tests.codegen.kernels.quantized_cases import Product, QuantizedCases
from tuili.codegen.targets import Target, find_target

# One worker compiles all cases.
pytestmark = pytest.mark.xdist_group("amx")

AMX = find_target("x86-64-amx")
PLAIN = replace(AMX, machine=BEST.machine, flags=("-DTL_PORTABLE", "-O1", *BEST.flags))
RNG = np.random.default_rng(41)


def _conv(rng: np.random.Generator) -> Product:
    """A convolution of 16 channels or more, with any window, padding, stride and dilation."""
    taps = [int(rng.choice([1, 1, 2, 3, 5])) for _ in range(2)]
    dilations = [int(rng.choice([1, 1, 2])) if tap > 1 else 1 for tap in taps]
    reach = [(tap - 1) * dilation + 1 for tap, dilation in zip(taps, dilations, strict=True)]
    pads = [int(rng.integers(0, reach[axis % 2])) for axis in range(4)]
    sizes = [size + int(rng.integers(3, 26)) for size in reach]
    channels, outputs = int(rng.choice([3, 20, 33, 64, 150])), int(rng.integers(16, 50))
    attrs: dict[str, Any] = {"pads": pads, "dilations": dilations}
    attrs["strides"] = [int(rng.choice([1, 1, 2, 3])) for _ in range(2)]
    open_axes = (0, 2, 3) if rng.random() < 0.3 else ()
    return Product(
        (int(rng.integers(1, 3)), channels, *sizes), (outputs, channels, *taps), attrs,
        codes=rng.choice([np.uint8, np.int8]), late_zero=bool(rng.random() < 0.2),
        extreme=bool(rng.random() < 0.3), open_axes=open_axes,
        residual=not open_axes and bool(rng.random() < 0.3),
    )  # fmt: skip


def _matmul(rng: np.random.Generator) -> Product:
    rows, depth, width = (int(rng.integers(*sizes)) for sizes in ((5, 90), (32, 200), (16, 100)))
    open_axes = (0,) if rng.random() < 0.3 else ()
    return Product(
        (rows, depth), (depth, width), codes=rng.choice([np.uint8, np.int8]),
        residual=not open_axes and bool(rng.random() < 0.3), open_axes=open_axes,
        result=rng.choice([np.uint8, np.int8]), extreme=bool(rng.random() < 0.3),
    )  # fmt: skip


STEPS = {"strides": [2, 2]}
CASES = {
    # What is copied and what is read of it: pixels that a stride leaves, in cells of any size.
    f"1x1 that steps, {channels} channels": Product(
        (1, channels, 9, 11), (24, channels, 1, 1), STEPS
    )
    for channels in (16, 24, 33, 48, 64, 70)
}
CASES |= {f"conv {i}": _conv(RNG) for i in range(14)} | {
    f"matmul {i}": _matmul(RNG) for i in range(8)
}


@cache
def _cases(target: Target) -> QuantizedCases:
    return QuantizedCases(CASES, target)


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_exact_in_plain_c(case: str) -> None:
    _cases(PLAIN).check(case)


@pytest.mark.skipif(not BEST.amx, reason="this processor has no tile registers")
@pytest.mark.parametrize("case", CASES)
def test_blocks_are_exact_in_registers(case: str) -> None:
    _cases(BEST).check(case)


def test_nearly_all_convolutions_run_in_blocks() -> None:
    assert list(_cases(PLAIN).families.values()).count("qconv_amx") > 11


def test_threads_give_the_same_codes() -> None:
    cases = _cases(BEST if BEST.amx else PLAIN)
    alone, together = cases.run(), cases.run(threads=3)
    assert all(np.array_equal(alone[name], together[name]) for name in alone)

"""Products of codes agree with their meaning to the bit, on every target that can be tried here.

Targets that this machine lacks are built with TL_PORTABLE: the same templates, packing and layouts,
with what single instructions do written out in C.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen.compiled import RUNNABLE, one_per
from tests.codegen.kernels.quantized_cases import Product, QuantizedCases
from tuili.codegen.kernels.quantized.dot import clamp_pairs, dots_for
from tuili.codegen.targets import Target, find_target

# One worker compiles all cases.
pytestmark = pytest.mark.xdist_group("quantized")

PADS = {"pads": [1, 1, 1, 1]}
CASES = {
    "3x3": Product((1, 16, 9, 11), (24, 16, 3, 3), PADS),
    "3x3 at the limits": Product((1, 16, 6, 7), (17, 16, 3, 3), PADS, extreme=True),
    "3x3 stride 2, odd channels": Product(
        (2, 19, 9, 12), (9, 19, 3, 3), {"strides": [2, 2], "pads": [0, 1, 1, 0]}
    ),
    "dilated": Product((1, 8, 9, 9), (8, 8, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "image": Product((1, 3, 12, 13), (16, 3, 3, 3), {"strides": [2, 2], **PADS}),
    "image, taps of a row as a run": Product(
        (2, 3, 15, 17), (16, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}, extreme=True
    ),
    "sound, taps as a run, a few pairs at the limits": Product(
        (1, 1, 40), (24, 1, 9), {"pads": [4, 4]}, rare=True, codes=np.int8, zero=-7
    ),
    "one channel, taps as a run, open sizes": Product(
        (1, 1, 9, 11), (17, 1, 5, 5), PADS, open_axes=(0, 2, 3), late_zero=True
    ),
    "1x1": Product((1, 24, 5, 10), (40, 24, 1, 1)),
    "1x1 at the limits": Product((1, 33, 4, 4), (16, 33, 1, 1), extreme=True),
    "1x1 of signed codes": Product((1, 16, 7, 7), (24, 16, 1, 1), codes=np.int8, zero=-7),
    "1x1, a few pairs at the limits": Product((1, 64, 5, 5), (24, 64, 1, 1), rare=True),
    "3x3, open sizes, a few pairs at the limits": Product(
        (1, 32, 5, 6), (8, 32, 3, 3), PADS, rare=True, open_axes=(2, 3)
    ),
    "matmul, a few pairs at the limits": Product((5, 24), (24, 64), rare=True),
    "wide weights": Product((1, 16, 4, 5), (8, 16, 3, 3), PADS, weights=np.int16, extreme=True),
    "with codes added": Product((1, 16, 6, 6), (16, 16, 1, 1), residual=True),
    "real result": Product((1, 16, 6, 6), (16, 16, 1, 1), result=None, bias=False),
    "signed result": Product((1, 16, 6, 6), (16, 16, 3, 3), result=np.int8, zero=None),
    "1-D": Product((1, 16, 30), (8, 16, 5), {"pads": [2, 2]}),
    "open sizes": Product((1, 16, 9, 11), (24, 16, 3, 3), PADS, open_axes=(0, 2, 3)),
    "open sizes, 1x1": Product((1, 16, 9, 11), (24, 16, 1, 1), open_axes=(0, 2, 3)),
    "depthwise": Product((1, 24, 9, 11), (24, 1, 3, 3), {"group": 24, **PADS}),
    "depthwise 5x5 stride 2": Product(
        (1, 9, 9, 11), (9, 1, 5, 5), {"group": 9, "strides": [2, 2], "pads": [2, 2, 2, 2]},
        codes=np.int8, extreme=True,
    ),
    "depthwise, open sizes": Product(
        (1, 16, 9, 20), (16, 1, 3, 3), {"group": 16, **PADS}, open_axes=(2, 3)
    ),
    "groups": Product((2, 32, 9, 11), (48, 16, 3, 3), {"group": 2, **PADS}),
    "groups that share vectors": Product(
        (1, 20, 6, 7), (15, 4, 3, 3), {"group": 5, "strides": [2, 2], **PADS}, extreme=True
    ),
    "thin groups, a few pairs at the limits": Product(
        (1, 64, 7, 5), (64, 4, 3, 3), {"group": 16, **PADS}, rare=True, open_axes=(0, 2, 3)
    ),
    "two outputs a channel": Product(
        (1, 16, 7, 5), (32, 1, 3, 3), {"group": 16, **PADS}, codes=np.int8, residual=True
    ),
    "matmul": Product((13, 32), (32, 24)),
    "matmul at the limits": Product((5, 64), (64, 16), extreme=True),
    "matmul, odd sizes": Product((2, 3, 19), (19, 21), codes=np.int8, zero=5),
    "matmul with codes added": Product((7, 16), (16, 19), residual=True),
    "matmul, one row": Product((1, 40), (40, 24), result=None),
    "matmul, wide weights": Product((6, 10), (10, 9), weights=np.int16),
    "matmul of no rows": Product((0, 32), (32, 24)),
    "matmul, open rows": Product((11, 32), (32, 24), open_axes=(0,)),
    "matmul, parameters found as it runs": Product(
        (9, 24), (24, 21), late_zero=True, late_scale=True, bias=False, result=None, zero=131
    ),
}  # fmt: skip
WINOGRAD = {
    "winograd": Product((2, 32, 13, 15), (40, 32, 3, 3), PADS, zero=131),
    "winograd at the limits": Product((1, 32, 17, 16), (33, 32, 3, 3), PADS, zero=0, extreme=True),
    "winograd, signed, the other limit": Product(
        (1, 36, 8, 8), (48, 36, 3, 3), codes=np.int8, zero=127, extreme=True, result=None
    ),
    "winograd, many channels": Product((1, 300, 7, 7), (24, 300, 3, 3), PADS, extreme=True),
    "winograd, wide weights": Product(
        (1, 32, 8, 9), (32, 32, 3, 3), PADS, weights=np.int16, extreme=True
    ),
    "winograd, codes added, open sizes": Product(
        (1, 32, 10, 11), (32, 32, 3, 3), PADS, open_axes=(2, 3), late_zero=True
    ),
    "winograd, codes added": Product((1, 32, 10, 11), (32, 32, 3, 3), PADS, residual=True),
    "winograd, many tiles": Product((9, 32, 100, 90), (16, 32, 3, 3), PADS, late_zero=True),
}
CASES |= WINOGRAD
BEST, *OTHERS = one_per(lambda t: dots_for(t, np.zeros(1, np.int8))[0].text, RUNNABLE)
VNNI_CYCLES = 0.25
LACKING = ("x86-64-amx", "x86-64-avx512-vnni", "x86-64-avx512", "aarch64-dotprod")
# What differs between targets, for those that are not this machine's best.
TELLING = (
    "3x3 at the limits", "image", "image, taps of a row as a run",
    "sound, taps as a run, a few pairs at the limits",
    "1x1, a few pairs at the limits", "1x1 at the limits", "1x1 of signed codes", "wide weights",
    "winograd at the limits", "winograd, signed, the other limit",
    "with codes added", "depthwise", "groups that share vectors",
    "matmul at the limits", "matmul, odd sizes", "matmul, parameters found as it runs",
)  # fmt: skip


@cache
def _cases(target: Target) -> QuantizedCases:
    names = CASES if target is BEST else TELLING
    return QuantizedCases({name: CASES[name] for name in names}, target)


@pytest.mark.parametrize("case", CASES)
def test_products_are_exact(case: str) -> None:
    _cases(BEST).check(case)


@pytest.mark.parametrize("target", OTHERS, ids=lambda t: t.name)
@pytest.mark.parametrize("case", TELLING)
def test_lesser_targets_are_exact(case: str, target: Target) -> None:
    _cases(target).check(case)


def winograd_pays(target: Target) -> bool:
    """Whether products of bytes cost a target so much that it transforms instead."""
    return dots_for(target, np.zeros(1, np.int8))[0].cycles > VNNI_CYCLES


def test_winograd_runs_where_it_is_tested() -> None:
    if not winograd_pays(BEST):
        pytest.skip(f"{BEST.name} multiplies bytes so fast that Winograd pays for large maps only")
    assert list(_cases(BEST).families.values()).count("qwinograd") == len(WINOGRAD)


def test_threads_give_the_same_codes() -> None:
    cases = _cases(BEST)
    alone, together = cases.run(), cases.run(threads=3)
    assert all(np.array_equal(alone[name], together[name]) for name in alone)


@pytest.mark.parametrize("name", LACKING)
def test_other_targets_are_exact(name: str) -> None:
    flags = ("-DTL_PORTABLE", "-O1", *BEST.flags)
    portable = replace(find_target(name), machine=BEST.machine, flags=flags)
    cases = _cases(portable)
    for case in TELLING:
        cases.check(case)


@given(st.lists(st.integers(-128, 127), min_size=4, max_size=4))
@settings(max_examples=200)
def test_no_pair_saturates_after_clamping(quad: list[int]) -> None:
    kept, rest = clamp_pairs(np.array(quad, np.int8))
    assert np.array_equal(kept.astype(int) + np.array([rest[0], 0, rest[1], 0]), np.array(quad))
    for pair in kept.astype(int).reshape(2, 2):
        assert 255 * np.maximum(pair, 0).sum() <= 32767
        assert 255 * np.minimum(pair, 0).sum() >= -32768

"""Winograd in bfloat16: what no step of it rounds is exact, the rest errs as rounded numbers do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.single_kernel import this_target
from tests.codegen.compiled import BEST
from tests.codegen.kernels.conv_cases import weights_of, window_node
from tests.codegen.kernels.test_bf16 import PADS, WITH_DOTS, Product, Products
from tuili.codegen.kernels.bf16.choice import Way, rank_ways
from tuili.codegen.kernels.bf16.winograd_numbers import HALVES
from tuili.codegen.kernels.conv.shape import conv_shape
from tuili.codegen.kernels.conv.winograd_numbers import FLOATS
from tuili.codegen.kernels.conv.winograd_transforms import F2, F4, S2
from tuili.codegen.targets import Target, find_target

pytestmark = pytest.mark.xdist_group("bf16")

# Where there are tile registers they are the better choice, and so are left out.
DOTS = find_target("x86-64-avx512-bf16")
TARGETS = [WITH_DOTS, *([DOTS] if BEST.bf16 else [])]
STEPS = {"strides": [2, 2]}
CASES = {
    "many blocks": Product((1, 32, 60, 61), (48, 32, 3, 3), PADS, bias=True, then="Relu"),
    "few blocks": Product((2, 40, 11, 13), (40, 40, 3, 3), PADS),
    "large weights": Product((1, 202, 13, 14), (272, 202, 3, 3), PADS, bias=True),
    "along a row": Product((1, 32, 613), (48, 32, 3), {"pads": [1, 1]}),
    "open sizes": Product((2, 24, 11, 13), (48, 24, 3, 3), PADS, open_axes=(0, 2, 3)),
    "stride": Product((1, 32, 60, 61), (48, 32, 3, 3), PADS | STEPS, then="Relu"),
    "stride, large weights": Product((1, 202, 13, 14), (272, 202, 3, 3), STEPS),
}


def _whole(products: Mapping[str, Product]) -> dict[str, Product]:
    return {
        name: Product(each.x, each.w, each.attrs, each.bias, each.then, each.open_axes, True)
        for name, each in products.items()
    }


@pytest.fixture
def _forced(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: dict[int, list[Way]] = {1: [(F2, HALVES)], 2: [(S2, HALVES)]}
    monkeypatch.setattr(
        "tuili.codegen.kernels.bf16.choice.rank_ways",
        lambda shape, target: ways[shape.columns.stride],
    )


@pytest.mark.usefixtures("_forced")
@pytest.mark.parametrize("target", TARGETS, ids=["in C", "instructions"][: len(TARGETS)])
def test_small_integers_are_not_rounded(target: Target) -> None:
    products = Products(target, _whole(CASES))
    assert products.families.count("winograd_bf16") == len(CASES)
    for threads in (1, 3):
        got = products.library.run(products.feeds, threads=threads)
        for name in CASES:
            np.testing.assert_array_equal(got[name], products.want[name], err_msg=name)


@pytest.mark.usefixtures("_forced")
def test_others_err_little_more_than_rounded_numbers() -> None:
    name = "large weights"
    products = Products(TARGETS[-1], {name: CASES[name]})
    error = products.library.run(products.feeds)[name] - products.want[name]
    # Both factors err by 2^-9 at most: 2^-9 of the products' deviation, twice with the transforms.
    assert 2**-11 < np.std(error) / np.std(products.want[name]) < 2**-7


@pytest.mark.parametrize(
    ("channels", "size", "way"),
    [
        (64, 56, (F2, HALVES)),
        (256, 14, (F2, HALVES)),
        (512, 7, (F2, HALVES)),
        (512, 4, (None, HALVES)),
        (24, 160, (F4, FLOATS)),
        (63, 56, (F4, FLOATS)),
    ],
)
def test_choice(channels: int, size: int, way: Way) -> None:
    node, _ = window_node(
        "Conv", this_target(), (1, channels, size, size), {"pads": [1] * 4},
        weights=weights_of(channels, channels, 3, 3),
    )  # fmt: skip
    assert rank_ways(conv_shape(node, (3, 3)), DOTS)[0] == way

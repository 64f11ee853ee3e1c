"""Depthwise convolution agrees with the operator's meaning."""

from __future__ import annotations

import pytest

from tests.codegen.kernels.conv_cases import (
    check,
    scalar_body,
    targets_here,
    weights_of,
    window_node,
)
from tuili.codegen.targets import Target

CASES = {
    "3x3": ((1, 32, 11, 40), (3, 3), {"pads": [1, 1, 1, 1]}),
    "3x3 stride 2, odd channels": (
        (2, 19, 12, 31), (3, 3),
        {"pads": [0, 0, 1, 1], "strides": [2, 2]},
    ),
    "5x5 small map": ((1, 40, 7, 7), (5, 5), {"pads": [2, 2, 2, 2]}),
    "dilated": ((1, 8, 17, 19), (3, 3), {"pads": [2, 3, 2, 3], "dilations": [2, 3]}),
    "no padding": ((1, 16, 9, 9), (3, 2), {}),
    "wide padding": ((1, 16, 2, 2), (3, 3), {"pads": [3, 3, 3, 3]}),
    "1-D": ((1, 24, 50), (9,), {"pads": [4, 4]}),
}  # fmt: skip


@pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("case", CASES)
def test_known_shapes(case: str, target: Target) -> None:
    shape, taps, attrs = CASES[case]
    channels = shape[1]
    node, values = window_node(
        "Conv", target, shape, {**attrs, "group": channels}, weights=weights_of(channels, 1, *taps),
        bias=weights_of(channels, 1)[:, 0], epilogue=scalar_body("Relu", extra=1), residual=True,
    )  # fmt: skip
    check(node, target, values, family="depthwise")


@pytest.mark.parametrize("case", CASES)
def test_symbolic_sizes(case: str) -> None:
    target = targets_here()[0]
    shape, taps, attrs = CASES[case]
    channels = shape[1]
    node, values = window_node(
        "Conv", target, shape, {**attrs, "group": channels}, weights=weights_of(channels, 1, *taps),
        axes="NW" if len(shape) == 3 else "NHW",
    )  # fmt: skip
    check(node, target, values, family="depthwise")

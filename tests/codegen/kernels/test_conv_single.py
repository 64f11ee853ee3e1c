"""Convolution to one plain channel agrees with the operators' meaning."""

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
    "1x1": ((2, 24, 6, 37), (1, 1), {}),
    "3x3": ((1, 32, 9, 40), (3, 3), {"pads": [1, 1, 1, 1]}),
    "stride 2": ((1, 19, 9, 41), (3, 5), {"pads": [0, 3, 1, 2], "strides": [1, 2]}),
    "narrow": ((1, 20, 3, 2), (3, 3), {"pads": [1, 1, 1, 1]}),
    "1-D": ((1, 20, 50), (3,), {"pads": [1, 1]}),
}

targets = pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)


@targets
@pytest.mark.parametrize("axes", ["", "NHW"])
@pytest.mark.parametrize("case", CASES)
def test_conv(case: str, axes: str, target: Target) -> None:
    shape, taps, attrs = CASES[case]
    node, values = window_node(
        "Conv", target, shape, attrs, weights=weights_of(1, shape[1], *taps), out_layout="",
        bias=weights_of(1, 1)[:, 0], epilogue=scalar_body("Sigmoid", extra=1), residual=True,
        axes=axes.replace("H", "") if len(shape) == 3 else axes,
    )  # fmt: skip
    check(node, target, values, family="conv_single")


@targets
@pytest.mark.parametrize("axes", ["", "HW"])
@pytest.mark.parametrize("channels", [16, 24])
def test_transposed(channels: int, axes: str, target: Target) -> None:
    node, values = window_node(
        "ConvTranspose", target, (1, channels, 5, 19), {"strides": [2, 2]}, out_layout="",
        weights=weights_of(channels, 1, 2, 2), bias=weights_of(1, 1)[:, 0],
        epilogue=scalar_body("Sigmoid"), axes=axes,
    )  # fmt: skip
    check(node, target, values, family="conv_single")

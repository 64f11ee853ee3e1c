"""Blocked transposed convolution agrees with the operator's meaning."""

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
    "2x2 stride 2": ((1, 24, 7, 20), (24, 24, 2, 2), {"strides": [2, 2]}),
    "to one channel": ((1, 24, 7, 9), (24, 1, 2, 2), {"strides": [2, 2]}),
    "3x3 stride 2": (
        (2, 16, 6, 18), (16, 20, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "4x4 stride 2": ((1, 16, 6, 8), (16, 16, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "dilated": ((1, 16, 5, 6), (16, 16, 3, 3), {"strides": [2, 1], "dilations": [2, 3]}),
    "gaps": ((1, 16, 4, 5), (16, 16, 1, 2), {"strides": [2, 3]}),
    "cut": ((1, 16, 6, 6), (16, 16, 2, 2), {"strides": [2, 2], "pads": [2, 1, 1, 2]}),
    "groups": ((1, 8, 5, 5), (8, 6, 3, 3), {"strides": [2, 2], "group": 2}),
    "1-D": ((1, 20, 13), (20, 18, 4), {"strides": [2], "pads": [1, 1]}),
}  # fmt: skip


@pytest.mark.parametrize("target", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("axes", ["", "NHW"])
@pytest.mark.parametrize("case", CASES)
def test_transposed(case: str, axes: str, target: Target) -> None:
    shape, weights, attrs = CASES[case]
    outputs = weights[1] * attrs.get("group", 1)
    node, values = window_node(
        "ConvTranspose", target, shape, attrs, weights=weights_of(*weights),
        bias=weights_of(outputs, 1)[:, 0], axes=axes.replace("H", "") if len(shape) == 3 else axes,
        epilogue=scalar_body("Relu", extra=1), residual=True,
    )  # fmt: skip
    check(node, target, values, family="conv_transposed")

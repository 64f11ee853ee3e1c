"""Row-major convolutions of any rank and type agree with the operators' meaning."""

from __future__ import annotations

import numpy as np
import pytest

from tests.codegen.kernels.conv_cases import check, targets_here, weights_of, window_node
from tuili.tensors import DType

CASES = {
    "1-D": ((2, 6, 20), (4, 3, 5), {"group": 2, "strides": [2], "pads": [1, 3]}),
    "2-D": ((1, 4, 9, 8), (6, 4, 3, 2), {"pads": [1, 0, 2, 1], "dilations": [1, 2]}),
    "3-D": ((1, 4, 5, 6, 7), (3, 4, 3, 3, 3), {"pads": [1] * 6, "strides": [1, 2, 1]}),
    "depthwise with multiplier": ((1, 3, 8, 8), (6, 1, 3, 3), {"group": 3}),
}


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.F16])
@pytest.mark.parametrize("case", CASES)
def test_conv(case: str, dtype: DType) -> None:
    target = targets_here()[0]
    shape, weights, attrs = CASES[case]
    node, values = window_node(
        "Conv", target, shape, attrs, weights=weights_of(*weights).astype(dtype.numpy),
        bias=np.linspace(-1, 1, weights[0]).astype(dtype.numpy), layout="", dtype=dtype,
    )  # fmt: skip
    check(node, target, values, tolerance=2e-3 if dtype is DType.F16 else 1e-5)


def test_symbolic() -> None:
    target = targets_here()[0]
    node, values = window_node(
        "Conv", target, (2, 3, 9, 8), {"pads": [1, 1, 1, 1], "strides": [2, 1]},
        weights=weights_of(4, 3, 3, 3), layout="", axes="NHW",
    )  # fmt: skip
    check(node, target, values)


TRANSPOSED = {
    "1-D": ((2, 6, 9), (6, 2, 4), {"group": 2, "strides": [3], "pads": [1, 2]}),
    "2-D": (
        (1, 4, 5, 6), (4, 3, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "same": ((1, 4, 5, 6), (4, 3, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "output shape": ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
    "dilated": ((1, 2, 4, 5), (2, 2, 2, 3), {"dilations": [2, 2], "strides": [1, 2]}),
    "3-D": ((1, 2, 3, 3, 4), (2, 2, 2, 2, 2), {"strides": [2, 2, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed(case: str) -> None:
    target = targets_here()[0]
    shape, weights, attrs = TRANSPOSED[case]
    node, values = window_node(
        "ConvTranspose", target, shape, attrs, weights=weights_of(*weights), layout=""
    )
    check(node, target, values)

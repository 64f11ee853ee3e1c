"""QConv and QMatMul: the products that every form of a quantized graph is rewritten to.

    y = f32(sum((x - x_zero) * w) + bias) * multiplier

The sum is exact in i32; the product with the multiplier is one f32 multiplication. `w` is centred:
its zero point is gone. QuantizeLinear with the scale 1 makes bytes of the result, so an integer
result is fixed to the bit by these three steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.convolution import CONV_ATTRS, conv_integer, conv_shape
from tuili.ops.linear import matmul_integer, matmul_shape
from tuili.ops.op import op
from tuili.tensors import Array


def _real(total: Array, bias: Array | None, multiplier: Array | None, channel: int) -> Array:
    """Sums as real numbers; bias and multiplier are numbers or vectors along axis `channel`."""
    if bias is not None:
        total = total + _along(bias, total.ndim, channel)
    real = total.astype(np.int32).astype(np.float32)
    return real if multiplier is None else real * _along(multiplier, total.ndim, channel)


def _along(vector: Array, rank: int, channel: int) -> Array:
    if vector.size == 1:
        return vector.reshape(())
    return vector.reshape([-1 if axis == channel else 1 for axis in range(rank)])


def _conv(
    x: Array,
    w: Array,
    x_zero: Array | None = None,
    bias: Array | None = None,
    multiplier: Array | None = None,
    **attrs: Any,
) -> Array:
    return _real(conv_integer(x, w, x_zero, **attrs), bias, multiplier, 1)


def _matmul(
    x: Array,
    w: Array,
    x_zero: Array | None = None,
    bias: Array | None = None,
    multiplier: Array | None = None,
) -> Array:
    total = matmul_integer(x, w, x_zero)
    return _real(total, bias, multiplier, total.ndim - 1)


_ALLOW = {"A": "byte", "W": "tiny"}
_INPUTS = "x:A w:W x_zero?:A bias?:i32 multiplier?:f32"

ROWS = (
    op("QConv", _INPUTS, "y:f32", conv_shape, _conv, attrs=CONV_ATTRS, allow=_ALLOW),
    op("QMatMul", _INPUTS, "y:f32", matmul_shape, _matmul, allow=_ALLOW),
)

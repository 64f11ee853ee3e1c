"""Strided 1x1 convolutions: the pixels that they read are gathered first, and lie side by side.

What is left is a product of one long row of pixels, whose tiles are full and whose cache lines are
used whole; reading every second pixel of every second row is neither. The copy is small beside it.
"""

from __future__ import annotations

from dataclasses import replace

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.shape import Axis, ConvShape, conv_shape
from tuili.ir import Node
from tuili.lower.program import View
from tuili.tensors import DType, ceil_div

_LEAST_OUTPUTS = 4  # vectors of output channels that are worth a copy


def gathered(shape: ConvShape, block: int, lanes: int) -> ConvShape | None:
    """The convolution of the gathered pixels, where gathering pays; else None."""
    axes = (shape.rows, shape.columns)
    if shape.taps != 1 or not all(axis.is_inside and axis.pad == 0 for axis in axes):
        return None
    strided = shape.rows.stride > 1 or shape.columns.stride > 1
    if not strided or block != lanes or shape.outputs < _LEAST_OUTPUTS * lanes:
        return None
    row = Axis(shape.pixels, shape.pixels, 1)
    return replace(shape, rows=Axis(1, 1, 1), columns=row)


def emit_gather(node: Node, ctx: Context) -> View:
    """The call that copies; returns where the pixels lie."""
    ones = (1,) * len(node.required(1).shape[2:])
    shape, lanes = conv_shape(node, ones), ctx.target.lanes
    rows, columns = shape.rows, shape.columns
    k = KernelBuilder(ctx, node, f"every_{rows.stride}x{columns.stride}")
    planes = shape.batch * ceil_div(shape.channels, lanes)
    floats = planes * shape.pixels * lanes
    pixels = k.temp("pixels", DType.F32, floats)
    k.read("x", node.required(0))
    k.write("y", pixels)
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.body(
        f"""
        for (int64_t item = begin; item < end; item++) {{
            const int64_t line = item / OH * H + item % OH * {rows.stride};
            const float *const from = x + line * W * V;
            float *const to = y + item * OW * V;
            for (int64_t ow = 0; ow < OW; ow++)
                v_store(to + ow * V, v_load(from + ow * {columns.stride} * V));
        }}
        """
    )
    k.emit(grid=planes * rows.out, bytes=floats * 8)
    return pixels

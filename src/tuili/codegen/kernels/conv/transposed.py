"""Transposed convolution into blocked output, as one direct convolution for each phase.

Output (i * S + phase) reads input i + (phase + P - k * D) / S for the taps k for which that is a
whole number: a convolution of stride 1 whose results lie S apart.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.conv.direct import emit_plan, supports_direct
from tuili.codegen.kernels.conv.plan import Scatter, direct_tiles, pack_panels, plan_direct
from tuili.codegen.kernels.conv.shape import Axis, ConvShape, likely_batch, transposed_axes
from tuili.ir import Node, block_of
from tuili.ops.table import attr
from tuili.tensors import Array, ceil_div, dim_max


def supports_transposed(node: Node, ctx: Context) -> bool:
    """What direct convolution asks for, and known pads."""
    if not supports_direct(node, ctx):
        return False
    taps = node.required(1).shape[2:]
    return all(isinstance(axis.pad, int) for axis in transposed_axes(node, taps))


def emit_transposed(node: Node, ctx: Context) -> None:
    """A call for each phase that has outputs."""
    x, weights = node.required(0), node.required(1).constant
    assert weights is not None  # supports_transposed
    axes = transposed_axes(node, weights.shape[2:])
    rows, columns = axes if len(axes) == 2 else [Axis(1, 1, 1), axes[0]]
    groups, block = attr(node, "group"), block_of(x.layout)
    filters = _as_filters(weights, groups)
    channels, outputs = x.shape[1], node.output.shape[1]
    assert isinstance(channels, int)
    assert isinstance(outputs, int)
    for top in range(rows.stride):
        row, row_taps = phase_axis(rows, top)
        for left in range(columns.stride):
            column, column_taps = phase_axis(columns, left)
            if row.out == 0 or column.out == 0:  # fewer outputs than the stride
                continue
            shape = ConvShape(
                x.shape[0], channels, outputs, row, column, likely_batch(node, x.shape[0])
            )
            strides, phase = (rows.stride, columns.stride), (top, left)
            scatter = Scatter(rows.out, columns.out, strides, phase)
            tile = direct_tiles(shape, groups, block, ctx.target)[0]
            plan = plan_direct(shape, groups, block, ctx.target, tile, scatter)
            taps = _pick(_pick(filters, 2, row_taps), 3, column_taps)
            name = f"conv_transpose{rows.taps}x{columns.taps}s{columns.stride}_{top}{left}"
            emit_plan(node, ctx, plan, pack_panels(taps, groups, plan), name)


def _as_filters(weights: Array, groups: int) -> Array:
    """[C, OC / groups, (KH,) KW] as [OC, C / groups, KH, KW]."""
    channels, outputs = weights.shape[:2]
    taps = weights.shape[2:] if weights.ndim == 4 else (1, *weights.shape[2:])
    split = weights.reshape(groups, channels // groups, outputs, *taps)
    return split.swapaxes(1, 2).reshape(groups * outputs, channels // groups, *taps)


def _pick(filters: Array, axis: int, taps: list[int]) -> Array:
    """Some taps along an axis; one of zeros when there are none."""
    if taps:
        return np.take(filters, taps, axis)
    return np.zeros_like(np.take(filters, [0], axis))


def phase_axis(axis: Axis, phase: int) -> tuple[Axis, list[int]]:
    """The axis of the convolution that makes the outputs of a phase, and its taps in order."""
    assert isinstance(axis.pad, int)
    shifts = {
        (phase + axis.pad - tap * axis.dilation) // axis.stride: tap
        for tap in range(axis.taps)
        if (phase + axis.pad - tap * axis.dilation) % axis.stride == 0
    }
    order = sorted(shifts) or [0]
    step = order[1] - order[0] if len(order) > 1 else 1
    count = ceil_div(axis.out - phase, axis.stride)
    end = dim_max(count + order[-1] - axis.size, 0)
    made = Axis(axis.size, count, len(order), 1, step, -order[0], end)
    return made, [shifts[shift] for shift in order if shift in shifts]

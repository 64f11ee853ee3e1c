"""Transposed convolutions as products: one for each phase, over an input padded for all of them.

Outputs whose places leave the same rests by the strides see the same taps; see `transposed`.
Weights are put in the order of a phase at compile time, or by a call of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import prod
from typing import cast

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.borders import padded
from tuili.codegen.kernels.conv.columns import Operands, emit_product, supports_columns
from tuili.codegen.kernels.conv.product import Window
from tuili.codegen.kernels.conv.shape import Axis, transposed_axes
from tuili.codegen.kernels.conv.transposed import phase_axis
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, dim_max

MOST_PHASES = 64


@dataclass(frozen=True, slots=True)
class _Phase:
    """Of each axis the rest, the convolution of stride 1 that makes it, and its taps in order."""

    rests: tuple[int, ...]
    axes: tuple[Axis, ...]
    taps: tuple[list[int], ...]

    def flat(self, window: Sequence[int]) -> list[int]:
        """Its taps as places in the whole window; -1 is one of zero, where an axis has none."""
        if not all(self.taps):
            return [-1] * prod(axis.taps for axis in self.axes)
        return [int(np.ravel_multi_index(each, tuple(window))) for each in product(*self.taps)]

    @property
    def has_outputs(self) -> bool:
        """Whether there are any, as far as is known."""
        return all(axis.out != 0 for axis in self.axes)


def supports_columns_transposed(node: Node, ctx: Context) -> bool:
    """What a product asks for, pads that are known and not too many phases."""
    if not supports_columns(node, ctx):
        return False
    axes = transposed_axes(node, node.required(1).shape[2:])
    known = all(isinstance(axis.pad, int) for axis in axes)
    return known and prod(axis.stride for axis in axes) <= MOST_PHASES


def emit_columns_transposed(node: Node, ctx: Context) -> None:
    """A call for each phase that has outputs."""
    axes = transposed_axes(node, node.required(1).shape[2:])
    phases = [phase for phase in _phases(axes) if phase.has_outputs]
    by_axis = list(zip(*(phase.axes for phase in phases), strict=True))
    begins = [max(_pad(axis) for axis in some) for some in by_axis]
    ends = [reduce(dim_max, [axis.end for axis in some]) for some in by_axis]
    around = padded(node, ctx, [max(begin, 0) for begin in begins], ends)
    for phase in phases:
        name = "conv_transpose_" + "".join(map(str, phase.rests))
        windows = [
            _window(size, made, max(begin, 0), whole, rest)
            for size, made, begin, whole, rest in zip(
                around.sizes, phase.axes, begins, axes, phase.rests, strict=True
            )
        ]
        operands = Operands(around.source, _weights(node, ctx, phase))
        emit_product(node, ctx, operands, windows, name)


def _phases(axes: Sequence[Axis]) -> Iterator[_Phase]:
    for rests in product(*(range(axis.stride) for axis in axes)):
        made = [phase_axis(axis, rest) for axis, rest in zip(axes, rests, strict=True)]
        yield _Phase(rests, tuple(axis for axis, _ in made), tuple(taps for _, taps in made))


def _pad(axis: Axis) -> int:
    return cast("int", axis.pad)  # supports_columns_transposed


def _window(size: Dim, made: Axis, begin: int, whole: Axis, rest: int) -> Window:
    taps = tuple(begin - _pad(made) + tap * made.dilation for tap in range(made.taps))
    return Window(size, made.out, 1, taps, whole.out, whole.stride, rest)


# -- weights -----------------------------------------------------------------------------------


def _weights(node: Node, ctx: Context, phase: _Phase) -> View:
    """[C, M / groups, taps] as [M, C / groups, taps of the phase]."""
    weights, groups = node.required(1), attr(node, "group")
    channels, outputs, *window = cast("list[int]", list(weights.shape))
    taps = phase.flat(window)
    if weights.constant is not None:
        flat = weights.constant.reshape(groups, channels // groups, outputs, prod(window))
        chosen = _chosen(flat, taps).swapaxes(1, 2)
        return View(ctx.add_weight(f"{node.output.name}.{phase.rests}", chosen))
    k = KernelBuilder(ctx, node, "taps_" + "".join(map(str, phase.rests)))
    ordered = k.temp("taps", weights.dtype, channels * outputs * len(taps))
    k.read("w", weights)
    k.write("y", ordered)
    k.dims("GC GM TAPS", (channels // groups, outputs, prod(window)))
    k.body(
        f"""
        static const int32_t taps[] = {{{", ".join(map(str, taps))}}};
        for (int64_t item = begin; item < end; item++)
            for (int64_t c = 0; c < GC; c++)
                for (int64_t t = 0; t < {len(taps)}; t++) {{
                    const int64_t at = (item / GM * GC + c) * GM + item % GM;
                    y[(item * GC + c) * {len(taps)} + t] =
                        taps[t] < 0 ? 0 : w[at * TAPS + taps[t]];
                }}
        """
    )
    k.emit(grid=groups * outputs, bytes=2 * channels * outputs * len(taps) * weights.dtype.itemsize)
    return ordered


def _chosen(flat: Array, taps: list[int]) -> Array:
    if taps[0] < 0:
        return np.zeros((*flat.shape[:-1], len(taps)), flat.dtype)
    return np.take(flat, taps, -1)

"""Strided copy: what most movement operators are; runs by memcpy, transposes in squares.

A copy walks the same axes on both sides with strides of their own. Where one side is contiguous
along one axis and the other side along another, see `transposed_copy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.movement.squares import UNSIGNED
from tuili.codegen.kernels.movement.transposed_copy import Plane, emit_transposed
from tuili.codegen.kernels.walk import Walk
from tuili.codegen.strides import Stride, collapse
from tuili.ir import Node, Value
from tuili.tensors import Dim, numel


@dataclass(frozen=True, slots=True)
class Copy:
    """Axes with their strides in the source and in the target, in elements."""

    dims: Sequence[Dim]
    source: Sequence[Stride]
    target: Sequence[Stride]
    source_offset: Dim = 0
    target_offset: Dim = 0


def emit_copy(name: str, node: Node, ctx: Context, x: Value, y: Value, copy: Copy) -> None:
    """Append the kernel that copies elements of `x` to `y`."""
    if 0 in copy.dims:
        return
    size = y.dtype.itemsize
    if size == 16:  # two words per element
        _emit_pairs(name, node, ctx, x, y, copy)
        return
    dims, (target, source) = collapse(copy.dims, [copy.target, copy.source])
    k = KernelBuilder(ctx, node, f"{name}_{8 * size}")
    k.read("x0", x, UNSIGNED[size])
    k.write("y", y, UNSIGNED[size])
    offsets = (copy.target_offset, copy.source_offset)
    plane = Plane(dims, source, target)
    axis = plane.axis
    if axis is not None and target[-1] == 1 and plane.is_at_least(ctx.target.lanes // 2):
        grid = emit_transposed(k, plane, axis, offsets, size)
    else:
        order = list(range(len(dims)))
        if axis is not None and isinstance(dims[-1], int) and dims[-1] < 8:
            order = [*(i for i in order if i != axis), axis]
        rows = [[side[i] for i in order] for side in (target, source)]
        grid = _runs(k, [dims[i] for i in order], rows, offsets, size)
    k.emit(grid=grid, bytes=numel(copy.dims) * (2 * size))


def _emit_pairs(name: str, node: Node, ctx: Context, x: Value, y: Value, copy: Copy) -> None:
    def doubled(strides: Sequence[Stride]) -> list[Stride]:
        assert all(not hasattr(stride, "dim") for stride in strides)
        return [*(stride * 2 for stride in strides), 1]  # pyright: ignore[reportOperatorIssue]

    dims, (target, source) = collapse([*copy.dims, 2], [doubled(copy.target), doubled(copy.source)])
    k = KernelBuilder(ctx, node, f"{name}_128")
    k.read("x0", x, UNSIGNED[8])
    k.write("y", y, UNSIGNED[8])
    offsets = (copy.target_offset * 2, copy.source_offset * 2)
    grid = _runs(k, dims, [target, source], offsets, 8)
    k.emit(grid=grid, bytes=numel(copy.dims) * 32)


def _runs(
    k: KernelBuilder,
    dims: Sequence[Dim],
    strides: Sequence[Sequence[Stride]],
    offsets: tuple[Dim, Dim],
    size: int,
) -> Dim:
    walk = Walk(k, dims, strides, [UNSIGNED[size]] * 2, offsets)
    grid = walk.declare()
    if walk.inner == [1, 1]:
        inner = f"memcpy(yp + first, x0p + first, (size_t)(last - first) * {size});"
    else:
        places = walk.places("j")
        inner = f"for (int64_t j = first; j < last; j++)\n    {places[0]} = {places[1]};"
    k.body(walk.loops(inner))
    return grid

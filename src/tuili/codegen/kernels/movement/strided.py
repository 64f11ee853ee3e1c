"""Operators that are strided copies: transpose, slice, concat, split, expand, tile, depth to space.

All but Transpose and the space/depth pair also run on blocked layouts, as long as they keep whole
blocks of channels together.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuili.codegen.kernel import Context, physical_shape
from tuili.codegen.kernels.movement.strided_copy import UNSIGNED, Copy, emit_copy
from tuili.codegen.strides import broadcast_strides, contiguous
from tuili.errors import Unsupported
from tuili.ir import Node, Value, block_of
from tuili.ops.bounds import at_least, at_most, from_front
from tuili.ops.table import attr
from tuili.tensors import Dim, DType

_WORDS = frozenset({*UNSIGNED, 16})


def is_movable(value: Value) -> bool:
    """Whether the elements are plain bytes."""
    return value.dtype is not DType.STR and value.dtype.itemsize in _WORDS


def supports_plain(node: Node, ctx: Context) -> bool:
    """Row-major tensors of any element type but text."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return is_movable(node.output) and all(not value.layout for value in values)


def _in_blocks(value: Value, axis: int, amounts: Sequence[Dim]) -> list[Dim] | None:
    """Amounts along an axis in units of memory: channels count in blocks; None if they do not."""
    block = block_of(value.layout)
    if block == 1 or axis % len(value.shape) != 1:
        return list(amounts)
    if any(not isinstance(amount, int) or amount % block for amount in amounts):
        return None
    return [amount // block for amount in amounts]


# -- transpose, expand, tile --------------------------------------------------------------------


def emit_transpose(node: Node, ctx: Context) -> None:
    """Axes in another order."""
    x, y = node.required(0), node.output
    perm = attr(node, "perm")
    rank = len(x.shape)
    order = [axis % rank for axis in perm] if perm is not None else list(reversed(range(rank)))
    steps = contiguous(x.shape)
    moved = [steps[axis] for axis in order]
    emit_copy("transpose", node, ctx, x, y, Copy(y.shape, moved, contiguous(y.shape)))


def emit_expand(node: Node, ctx: Context) -> None:
    """Axes of size 1 repeated."""
    x, y = node.required(0), node.output
    strides = broadcast_strides(x.shape, y.shape)
    emit_copy("expand", node, ctx, x, y, Copy(y.shape, strides, contiguous(y.shape)))


def emit_tile(node: Node, ctx: Context) -> None:
    """The whole tensor repeated: every axis becomes (repeats, size), the first with stride 0."""
    x, y = node.required(0), node.output
    repeats = ctx.contents.dims(node.required(1))
    if repeats is None:
        raise Unsupported(f"{node.label}: its repeats are not known when the model is compiled")
    dims: list[Dim] = []
    source: list[Dim] = []
    target: list[Dim] = []
    steps = zip(x.shape, repeats, contiguous(x.shape), contiguous(y.shape), strict=True)
    for size, count, from_step, to_step in steps:
        dims += [count, size]
        source += [0, from_step]
        target += [to_step * size, to_step]
    emit_copy("tile", node, ctx, x, y, Copy(dims, source, target))


# -- slice, concat, split -----------------------------------------------------------------------


def _slice_parts(node: Node, ctx: Context) -> list[tuple[int, Dim, int]]:
    """(axis, first index, step) of every sliced axis."""
    x = node.required(0)
    starts, axes = ctx.contents.dims(node.required(1)), ctx.contents.dims(node.input(3))
    steps = ctx.contents.dims(node.input(4))
    missing = [
        name
        for name, slot, found in (("starts", 1, starts), ("axes", 3, axes), ("steps", 4, steps))
        if found is None and node.input(slot) is not None
    ]
    if missing or starts is None:
        raise Unsupported(f"{node.label}: {missing} are not known when the model is compiled")
    parts: list[tuple[int, Dim, int]] = []
    for index, start in enumerate(starts):
        axis = index if axes is None else axes[index]
        step = 1 if steps is None else steps[index]
        if not isinstance(axis, int) or not isinstance(step, int):
            raise Unsupported(f"{node.label}: axes and steps must be numbers, found {axis}, {step}")
        axis %= len(x.shape)
        parts.append((axis, _first(x.shape[axis], start, step), step))
    return parts


def _first(size: Dim, start: Dim, step: int) -> Dim:
    """The first index of a slice: counted from the end when negative, clamped into the axis."""
    if isinstance(start, int) and start <= -(10**9):
        return 0
    highest = size if step > 0 else size - 1
    return at_least(at_most(from_front(start, size), highest), 0)


def supports_slice(node: Node, ctx: Context) -> bool:
    """Row-major, or blocked when channels are cut between blocks."""
    x, y = node.required(0), node.output
    if not is_movable(x) or x.layout != y.layout:
        return False
    if not x.layout:
        return True
    for axis, first, step in _slice_parts(node, ctx):
        cut = axis == 1 and (first != 0 or y.shape[1] != x.shape[1])
        if axis == 1 and step != 1:
            return False
        if cut and _in_blocks(x, 1, [first]) is None:
            return False
    return True


def emit_slice(node: Node, ctx: Context) -> None:
    """A window with steps."""
    x, y = node.required(0), node.output
    steps = list(contiguous(physical_shape(x.tensor)))
    offset: Dim = 0
    for axis, first, step in _slice_parts(node, ctx):
        unit = _in_blocks(x, axis, [first])
        assert unit is not None  # supports_slice
        offset = offset + unit[0] * steps[axis]
        steps[axis] = steps[axis] * step
    shape = physical_shape(y.tensor)
    copy = Copy(shape, steps, contiguous(shape), source_offset=offset)
    emit_copy("slice", node, ctx, x, y, copy)


def _join_axis(node: Node, whole: Value) -> int:
    return int(attr(node, "axis")) % len(whole.shape)


def _parts_fit(node: Node, whole: Value, parts: Sequence[Value]) -> bool:
    if not is_movable(whole) or any(part.layout != whole.layout for part in parts):
        return False
    axis = _join_axis(node, whole)
    # The last part may end inside a block: what follows it there is never read.
    return _in_blocks(whole, axis, [part.shape[axis] for part in parts[:-1]]) is not None


def supports_concat(node: Node, ctx: Context) -> bool:
    """Row-major, or blocked when parts end between blocks."""
    return _parts_fit(node, node.output, [value for value in node.inputs if value is not None])


def emit_concat(node: Node, ctx: Context) -> None:
    """Every input copied to its place."""
    y = node.output
    axis = _join_axis(node, y)
    steps = contiguous(physical_shape(y.tensor))
    at: Dim = 0
    for value in (value for value in node.inputs if value is not None):
        shape = physical_shape(value.tensor)
        copy = Copy(shape, contiguous(shape), steps, target_offset=at * steps[axis])
        emit_copy("concat", node, ctx, value, y, copy)
        at = at + shape[axis]


def supports_split(node: Node, ctx: Context) -> bool:
    """Row-major, or blocked when parts end between blocks."""
    return _parts_fit(node, node.required(0), node.outputs)


def emit_split(node: Node, ctx: Context) -> None:
    """Every output copied from its place."""
    x = node.required(0)
    axis = _join_axis(node, x)
    steps = contiguous(physical_shape(x.tensor))
    at: Dim = 0
    for value in node.outputs:
        shape = physical_shape(value.tensor)
        copy = Copy(shape, steps, contiguous(shape), source_offset=at * steps[axis])
        if value.uses:
            emit_copy("split", node, ctx, x, value, copy)
        at = at + shape[axis]


# -- depth and space ----------------------------------------------------------------------------


def _copy_permuted(
    name: str, node: Node, ctx: Context, dims: Sequence[Dim], order: Sequence[int]
) -> None:
    """The input seen as `dims`, its axes in another order."""
    steps = contiguous(dims)
    shape = [dims[axis] for axis in order]
    copy = Copy(shape, [steps[axis] for axis in order], contiguous(shape))
    emit_copy(name, node, ctx, node.required(0), node.output, copy)


def emit_depth_to_space(node: Node, ctx: Context) -> None:
    """Channels become squares of pixels."""
    n, c, h, w = node.required(0).shape
    b = int(attr(node, "blocksize"))
    depth = c // (b * b)
    if attr(node, "mode") == "DCR":
        _copy_permuted("depth_to_space", node, ctx, (n, b, b, depth, h, w), (0, 3, 4, 1, 5, 2))
    else:
        _copy_permuted("depth_to_space", node, ctx, (n, depth, b, b, h, w), (0, 1, 4, 2, 5, 3))


def emit_space_to_depth(node: Node, ctx: Context) -> None:
    """Squares of pixels become channels."""
    n, c, h, w = node.required(0).shape
    b = int(attr(node, "blocksize"))
    crd = attr(node, "mode") == "CRD"
    order = (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)
    _copy_permuted("space_to_depth", node, ctx, (n, c, h // b, b, w // b, b), order)

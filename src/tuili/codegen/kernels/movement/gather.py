"""Gather and Scatter: elements and rows by index; an index out of range fails the run."""

from __future__ import annotations

from collections.abc import Sequence

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.movement.strided import is_movable
from tuili.codegen.kernels.movement.strided_copy import UNSIGNED, Copy, emit_copy
from tuili.codegen.strides import contiguous
from tuili.errors import Unsupported
from tuili.ir import Node, Value
from tuili.ops.bounds import bounds
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, numel


def supports(node: Node, ctx: Context) -> bool:
    """Row-major data of any element type but text."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return is_movable(node.required(0)) and all(not value.layout for value in values)


def wrap_index(k: KernelBuilder, name: str, index: str, size: str) -> list[str]:
    """C for an index that may count from the end; out of range is a fault, and row 0."""
    known = f" of size {size}" if size.isdigit() else ""
    fault = k.fault(f"an index is out of range for an axis{known} of the data")
    return [
        f"int64_t {name} = (int64_t){index};",
        f"{name} += {name} < 0 ? {size} : 0;",
        f"if ({name} < 0 || {name} >= {size}) {{",
        f"    {fault}",
        "    continue;",
        "}",
    ]


def _words(value: Value) -> tuple[str, int]:
    """The unit in which elements are moved, and how many make one."""
    size = value.dtype.itemsize
    return (UNSIGNED[8], 2) if size == 16 else (UNSIGNED[size], 1)


# -- Gather -------------------------------------------------------------------------------------


def emit_gather(node: Node, ctx: Context) -> None:
    """Rows of the data by index; one known index is a plain copy."""
    x, indices, y = node.required(0), node.required(1), node.output
    axis = int(attr(node, "axis")) % len(x.shape)
    if 0 in y.shape:
        return
    known = ctx.contents.dims(indices)
    if known is not None and len(known) == 1 and _sign(known[0]) is not None:
        _emit_one(node, ctx, axis, known[0])
        return
    inner, count = numel(x.shape[axis + 1 :]), numel(indices.shape)
    word, many = _words(x)
    k = KernelBuilder(ctx, node, f"gather_{8 * x.dtype.itemsize}")
    k.read("x", x, word)
    k.read("indices", indices)
    k.write("y", y, word)
    k.dims("SIZE COUNT INNER", (x.shape[axis], count, inner * many))
    lines = wrap_index(k, "at", "indices[item % COUNT]", "SIZE")
    size = x.dtype.itemsize // many
    k.body(
        "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                *(f"    {line}" for line in lines),
                f"    const {word} *const from = x + (item / COUNT * SIZE + at) * INNER;",
                f"    memcpy(y + item * INNER, from, (size_t)INNER * {size});",
                "}",
            ]
        )
    )
    k.emit(grid=numel(x.shape[:axis]) * count, bytes=size_of(y.tensor) * 2)


def _sign(dim: Dim) -> int | None:
    least, most = bounds(dim)
    return 1 if least >= 0 else -1 if most < 0 else None


def _emit_one(node: Node, ctx: Context, axis: int, index: Dim) -> None:
    x, y = node.required(0), node.output
    steps = contiguous(x.shape)
    at = index if _sign(index) == 1 else index + x.shape[axis]
    dims = (numel(x.shape[:axis]), numel(x.shape[axis + 1 :]))
    step = x.shape[axis] * steps[axis]
    copy = Copy(dims, (step, 1), (steps[axis], 1), source_offset=at * steps[axis])
    emit_copy("gather_one", node, ctx, x, y, copy)


# -- elements -----------------------------------------------------------------------------------


def _row_offset(
    k: KernelBuilder, dims: Sequence[Dim], steps: Sequence[Dim], axis: int
) -> list[str]:
    """C that finds where the row `item` of an index tensor starts in the data."""
    lines = ["int64_t rest = item, base = 0;"]
    for place in reversed(range(len(dims) - 1)):
        k.dim(f"I{place}", dims[place])
        if place != axis:
            k.dim(f"S{place}", steps[place])
            lines.append(f"base += rest % I{place} * S{place};")
        lines.append(f"rest /= I{place};")
    return [*lines, "(void)rest;"]


def emit_gather_elements(node: Node, ctx: Context) -> None:
    """One element of the data for each index; a grid item is one row of indices."""
    x, indices, y = node.required(0), node.required(1), node.output
    if 0 in y.shape:
        return
    axis = int(attr(node, "axis")) % len(x.shape)
    k = KernelBuilder(ctx, node, f"gather_elements_{8 * x.dtype.itemsize}")
    word, many = _words(x)
    if many > 1:
        raise Unsupported(f"{node.label}: elements of type {x.dtype.value} have no kernel")
    k.read("x", x, word)
    k.read("indices", indices)
    k.write("y", y, word)
    steps = contiguous(x.shape)
    k.dims("SIZE STEP LENGTH", (x.shape[axis], steps[axis], y.shape[-1]))
    beside = "" if axis == len(x.shape) - 1 else " + j"
    lines = [
        *_row_offset(k, y.shape, steps, axis),
        "for (int64_t j = 0; j < LENGTH; j++) {",
        *(f"    {line}" for line in wrap_index(k, "at", "indices[item * LENGTH + j]", "SIZE")),
        f"    y[item * LENGTH + j] = x[base{beside} + at * STEP];",
        "}",
    ]
    _body(k, lines)
    k.emit(grid=numel(y.shape[:-1]), bytes=size_of(y.tensor) * 3)


def _body(k: KernelBuilder, lines: Sequence[str]) -> None:
    k.body(
        "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                *(f"    {line}" for line in lines),
                "}",
            ]
        )
    )


def emit_gather_nd(node: Node, ctx: Context) -> None:
    """Slices of the data at positions; a grid item is one position."""
    x, indices, y = node.required(0), node.required(1), node.output
    if 0 in y.shape:
        return
    batch, depth = int(attr(node, "batch_dims")), indices.shape[-1]
    assert isinstance(depth, int)
    inner = numel(x.shape[batch + depth :])
    places = numel(indices.shape[batch:-1])
    word, many = _words(x)
    k = KernelBuilder(ctx, node, f"gather_nd_{8 * x.dtype.itemsize}")
    k.read("x", x, word)
    k.read("indices", indices)
    k.write("y", y, word)
    k.dims("PLACES BATCH INNER", (places, numel(x.shape[batch:]), inner * many))
    lines = ["int64_t from = item / PLACES * BATCH;"]
    lines += _position(k, x.shape[batch:], depth, "from")
    size = x.dtype.itemsize // many
    lines.append(f"memcpy(y + item * INNER, x + from * {many}, (size_t)INNER * {size});")
    _body(k, lines)
    k.emit(grid=numel(indices.shape[:-1]), bytes=size_of(y.tensor) * 2)


def _position(k: KernelBuilder, shape: Sequence[Dim], depth: int, name: str) -> list[str]:
    """C that adds the place that `depth` indices of `item` address."""
    lines: list[str] = []
    steps = contiguous(shape)
    for axis in range(depth):
        k.dims(f"N{axis} S{axis}", (shape[axis], steps[axis]))
        lines += wrap_index(k, f"at{axis}", f"indices[item * {depth} + {axis}]", f"N{axis}")
        lines.append(f"{name} += at{axis} * S{axis};")
    return lines


# -- scatter ------------------------------------------------------------------------------------

_COMBINE = {
    "none": "{new}",
    "add": "{old} + {new}",
    "mul": "{old} * {new}",
    "max": "{p}max({old}, {new})",
    "min": "{p}min({old}, {new})",
}


def supports_scatter(node: Node, ctx: Context) -> bool:
    """Row-major; arithmetic only where C has it."""
    combines = attr(node, "reduction") != "none"
    return supports(node, ctx) and (is_native(node.output.dtype) or not combines)


def supports_scatter_nd(node: Node, ctx: Context) -> bool:
    """A known number of axes that the indices address."""
    return supports_scatter(node, ctx) and isinstance(node.required(1).shape[-1], int)


def _store(node: Node, place: str, update: str) -> str:
    """C that brings an update into the data."""
    dtype, reduction = node.output.dtype, str(attr(node, "reduction"))
    if reduction == "none":
        return f"y[{place}] = {update};"
    old, new = loaded(dtype, f"y[{place}]"), loaded(dtype, update)
    if reduction in ("max", "min") and not dtype.is_float:
        sign = ">" if reduction == "max" else "<"
        return f"y[{place}] = {new} {sign} {old} ? {new} : {old};"
    prefix = "d_" if dtype is DType.F64 else "s_"
    text = _COMBINE[reduction].format(old=old, new=new, p=prefix)
    if dtype.is_float:
        return f"y[{place}] = {stored(dtype, f'({register_type(dtype)})({text})')};"
    wide = f"(uint64_t){old}", f"(uint64_t){new}"
    return f"y[{place}] = ({dtype.c})({_COMBINE[reduction].format(old=wide[0], new=wide[1])});"


def _copy_data(node: Node, ctx: Context) -> None:
    x, y = node.required(0), node.output
    emit_copy("copy", node, ctx, x, y, Copy((numel(x.shape),), (1,), (1,)))


def emit_scatter_elements(node: Node, ctx: Context) -> None:
    """Updates element by element, in order: one thread, since places may repeat."""
    x, indices, updates, y = (*map(node.required, range(3)), node.output)
    if 0 in y.shape:
        return
    _copy_data(node, ctx)
    if 0 in indices.shape:
        return
    axis = int(attr(node, "axis")) % len(x.shape)
    k = KernelBuilder(ctx, node, f"scatter_elements_{attr(node, 'reduction')}_{y.dtype.value}")
    k.read("indices", indices)
    k.read("updates", updates)
    k.write("y", y)
    steps = contiguous(x.shape)
    rows = numel(indices.shape[:-1])
    k.dims("ROWS SIZE STEP LENGTH", (rows, x.shape[axis], steps[axis], indices.shape[-1]))
    beside = "" if axis == len(x.shape) - 1 else " + j"
    lines = [
        *_row_offset(k, indices.shape, steps, axis),
        "for (int64_t j = 0; j < LENGTH; j++) {",
        *(f"    {line}" for line in wrap_index(k, "at", "indices[item * LENGTH + j]", "SIZE")),
        f"    const int64_t to = base{beside} + at * STEP;",
        f"    {_store(node, 'to', 'updates[item * LENGTH + j]')}",
        "}",
    ]
    _serial(k, "ROWS", lines)
    k.emit(grid=1, bytes=size_of(updates.tensor) * 3)


def _serial(k: KernelBuilder, count: str, lines: Sequence[str]) -> None:
    k.body(
        "\n".join(
            [
                f"for (int64_t item = 0; begin < end && item < {count}; item++) {{",
                *(f"    {line}" for line in lines),
                "}",
            ]
        )
    )


def emit_scatter_nd(node: Node, ctx: Context) -> None:
    """Updates slice by slice, in order."""
    x, indices, updates, y = (*map(node.required, range(3)), node.output)
    if 0 in y.shape:
        return
    _copy_data(node, ctx)
    depth = indices.shape[-1]
    assert isinstance(depth, int)
    if 0 in updates.shape:
        return
    k = KernelBuilder(ctx, node, f"scatter_nd_{attr(node, 'reduction')}_{y.dtype.value}")
    k.read("indices", indices)
    k.read("updates", updates)
    k.write("y", y)
    k.dims("PLACES INNER", (numel(indices.shape[:-1]), numel(x.shape[depth:])))
    lines = [
        "int64_t to = 0;",
        *_position(k, x.shape, depth, "to"),
        "for (int64_t j = 0; j < INNER; j++)",
        f"    {_store(node, 'to + j', 'updates[item * INNER + j]')}",
    ]
    _serial(k, "PLACES", lines)
    k.emit(grid=1, bytes=size_of(updates.tensor) * 3)

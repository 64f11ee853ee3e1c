"""Row-major pools of any rank and type; see `plain` for convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.plain_rows import (
    PIECE,
    PlainRows,
    begin_rows,
)
from tuili.codegen.kernels.conv.shape import window_axes
from tuili.codegen.text import indent
from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.tensors import DType, numel


def supports_plain_pool(node: Node, ctx: Context) -> bool:
    """Whether everything is row-major and C computes with the type."""
    x = node.required(0)
    return is_native(x.dtype) and not any(value.layout for value in (x, *node.outputs))


def emit_plain_max_pool(node: Node, ctx: Context) -> None:
    """MaxPool, with the places of the largest elements when they are asked for."""
    x = node.required(0)
    lowest = "-INFINITY" if x.dtype.is_float else _lowest(x.dtype)
    places = node.outputs[1] if len(node.outputs) > 1 else None
    if places is None:
        kind = register_type(x.dtype)
        larger = "{0} = value > {0} || value != value ? value : {0};"
        if _emit_pool_rows(node, ctx, _Pooled(kind, lowest, larger)):
            return
    z = len(x.shape) - 3
    value = [
        f"const {register_type(x.dtype)} value = {loaded(x.dtype, f'xr[i{z}]')};",
        "if (!found || value > best || value != value)",
        f"    best = value, place = xr + i{z} - x, found = 1;",
    ]
    start = [
        f"{register_type(x.dtype)} best = {lowest};",
        "int64_t place = -1;",
        "int found = 0;",
        "(void)place;",
    ]
    store = [f"y[item * O{z} + o{z}] = {stored(x.dtype, 'best')};"]
    if places is not None:
        store.append(f"indices[item * O{z} + o{z}] = {_place(node, z)};")
    _emit_pool(node, ctx, start, value, store, places)


def _lowest(dtype: DType) -> str:
    if dtype.is_signed_int:
        return f"INT{dtype.bits}_MIN"
    return "0"


def _place(node: Node, last: int) -> str:
    """The index in the whole input; column-major within a plane when storage_order asks."""
    if not attr(node, "storage_order"):
        return "place"
    sizes = " * ".join(f"I{a}" for a in range(last + 1))
    text, scale = f"place / ({sizes}) * ({sizes})", "1"
    for a in range(last + 1):
        inner = " * ".join(["1", *(f"I{b}" for b in range(a + 1, last + 1))])
        text += f" + place / ({inner}) % I{a} * ({scale})"
        scale += f" * I{a}"
    return text


def emit_plain_average_pool(node: Node, ctx: Context) -> None:
    """AveragePool: the mean of the input in a window, or of its padding too."""
    x = node.required(0)
    acc = _accumulator(x)
    counts_pads = bool(attr(node, "count_include_pad"))
    if _emit_pool_rows(node, ctx, _Pooled(acc, "0", "{0} += value;", is_mean=True)):
        return
    z = len(x.shape) - 3
    value = [f"sum += {loaded(x.dtype, f'xr[i{z}]')};", "count++;"]
    start = [f"{acc} sum = 0;", "int64_t count = 0;"]
    mean = f"sum / ({acc})count"
    if counts_pads:
        mean = f"sum / ({acc})({' * '.join(_padded_taps(a) for a in range(z + 1))})"
        start.append("(void)count;")
    _emit_pool(node, ctx, start, value, [f"y[item * O{z} + o{z}] = {stored(x.dtype, mean)};"])


def _padded_taps(axis: int) -> str:
    """How many taps of a window read input or padding."""
    a = axis
    return f"tl_min(K{a}, (I{a} + E{a} - (o{a} * S{a} - P{a}) + D{a} - 1) / D{a})"


def _real_taps(axis: int) -> str:
    """How many taps of a window read real input."""
    a = axis
    before = f"tl_max(0, (P{a} - o{a} * S{a} + D{a} - 1) / D{a})"
    return f"(tl_min(K{a}, (I{a} + P{a} - o{a} * S{a} + D{a} - 1) / D{a}) - {before})"


def emit_plain_lp_pool(node: Node, ctx: Context) -> None:
    """LpPool: the p-norm of each window."""
    x, p = node.required(0), attr(node, "p")
    acc = _accumulator(x)
    z = len(x.shape) - 3
    value = [f"sum += ({acc})pow(fabs((double){loaded(x.dtype, f'xr[i{z}]')}), {p});"]
    root = f"pow((double)sum, 1.0 / {p})"
    store = [f"y[item * O{z} + o{z}] = {stored(x.dtype, f'({acc}){root}')};"]
    _emit_pool(node, ctx, [f"{acc} sum = 0;"], value, store)


def _accumulator(x: Value) -> str:
    return "double" if x.dtype is DType.F64 else "float"


@dataclass(frozen=True, slots=True)
class _Pooled:
    """What a pool keeps while taps pass: C type, first number, how a `value` comes to it."""

    kind: str
    first: str
    each: str
    is_mean: bool = False


def _emit_pool_rows(node: Node, ctx: Context, pooled: _Pooled) -> bool:
    """A pool in two steps: rows of the window into one, then along it; False without the room."""
    x = node.required(0)
    rows = PlainRows(window_axes(node, attr(node, "kernel_shape")))
    z, kind = rows.last, pooled.kind
    room = x.shape[-1] * 8
    if ctx.program.depends_on_data(room):
        return False
    k = begin_rows(node, ctx, f"{node.op.lower()}_rows", rows)
    k.dim("C", x.shape[1])
    k.scratch(room)
    source = rows.index("(n * C + m)", "i", "I", to=z)
    down = [
        f"const {x.dtype.c} *const xr = x + {source} * I{z};",
        f"for (int64_t i = 0; i < I{z}; i++) {{",
        f"    const {kind} value = {loaded(x.dtype, 'xr[i]')};",
        f"    {pooled.each.format('row[i]')}",
        "}",
    ]
    width = node.output.shape[-1]
    is_whole = isinstance(width, int) and width <= PIECE  # counts are those of every row
    counts = _counts(node, rows, kind) if pooled.is_mean else []
    once = [f"const int64_t left = 0, right = O{z};", *counts] if counts and is_whole else []
    lines = [
        f"{kind} *const row = ({kind} *)scratch;",
        *once,
        "for (int64_t item = begin; item < end; item++) {",
        *indent(rows.split_item("C")),
        f"    for (int64_t i = 0; i < I{z}; i++)",
        f"        row[i] = {pooled.first};",
        *indent(rows.tap_loops(down)),
        f"    for (int64_t left = 0; left < O{z}; left += {PIECE}) {{",
        *indent(_along_row(node, rows, pooled, [] if once else counts), 2),
        "    }",
        "}",
    ]
    k.body("\n".join(lines))
    _finish_pool(k, node, rows)
    return True


def _along_row(node: Node, rows: PlainRows, pooled: _Pooled, counts: list[str]) -> list[str]:
    """C for a piece of outputs, from `row[]`: the second step of `_emit_pool_rows`."""
    z, kind = rows.last, pooled.kind
    result = "kept[o - left]"
    if pooled.is_mean:
        result += " / (outside * counts[o - left])"
    return [
        f"const int64_t right = tl_min(left + {PIECE}, O{z});",
        f"{kind} kept[{PIECE}];",
        "for (int64_t o = left; o < right; o++)",
        f"    kept[o - left] = {pooled.first};",
        f"for (int64_t kl = 0; kl < K{z}; kl++) {{",
        *indent(rows.range_of_last),
        "    for (int64_t o = low; o < high; o++) {",
        f"        const {kind} value = row[o * S{z} + start];",
        f"        {pooled.each.format('kept[o - left]')}",
        "    }",
        "}",
        *counts,
        *(_outside(node, rows, kind) if pooled.is_mean else ()),
        "for (int64_t o = left; o < right; o++)",
        f"    y[item * O{z} + o] = {stored(node.output.dtype, result)};",
    ]


def _counted(node: Node) -> Callable[[int], str]:
    """What a mean is over along one axis."""
    return _padded_taps if attr(node, "count_include_pad") else _real_taps


def _outside(node: Node, rows: PlainRows, kind: str) -> list[str]:
    """C for `outside`: the taps of a window that a mean is over, along all axes but the last."""
    outer = " * ".join(["1", *(_counted(node)(a) for a in range(rows.last))])
    return [f"const {kind} outside = ({kind})({outer});"]


def _counts(node: Node, rows: PlainRows, kind: str) -> list[str]:
    """C for `counts[]`: those along the last axis, for each output of a piece."""
    z = rows.last
    ends = f"I{z} + P{z} + E{z} - kl * D{z}"
    last = [
        f"const int64_t low = left, high = tl_min(right, tl_floordiv({ends} + S{z} - 1, S{z}));"
    ]
    return [
        f"{kind} counts[{PIECE}];",
        "for (int64_t o = left; o < right; o++)",
        "    counts[o - left] = 0;",
        f"for (int64_t kl = 0; kl < K{z}; kl++) {{",
        *indent(last if _counted(node) is _padded_taps else rows.range_of_last),
        "    for (int64_t o = low; o < high; o++)",
        "        counts[o - left] += 1;",
        "}",
    ]


def _emit_pool(
    node: Node,
    ctx: Context,
    start: list[str],
    value: list[str],
    store: list[str],
    places: Value | None = None,
) -> None:
    x = node.required(0)
    rows = PlainRows(window_axes(node, attr(node, "kernel_shape")))
    z = rows.last
    k = begin_rows(node, ctx, node.op.lower(), rows)
    if places is not None:
        k.write("indices", places)
    k.dim("C", x.shape[1])
    source = rows.index("(n * C + m)", "i", "I", to=z)
    inner = [
        f"const {x.dtype.c} *const xr = x + {source} * I{z};",
        f"for (int64_t k{z} = 0; k{z} < K{z}; k{z}++) {{",
        f"    const int64_t i{z} = o{z} * S{z} - P{z} + k{z} * D{z};",
        f"    if (i{z} < 0 || i{z} >= I{z})",
        "        continue;",
        *indent(value),
        "}",
    ]
    lines = [
        "for (int64_t item = begin; item < end; item++) {",
        *indent(rows.split_item("C")),
        f"    for (int64_t o{z} = 0; o{z} < O{z}; o{z}++) {{",
        *indent(start, 2),
        *indent(rows.tap_loops(inner), 2),
        *indent(store, 2),
        "    }",
        "}",
    ]
    k.body("\n".join(lines))
    _finish_pool(k, node, rows)


def _finish_pool(k: KernelBuilder, node: Node, rows: PlainRows) -> None:
    x, y = node.required(0), node.output
    size, taps = numel(y.shape), numel([axis.taps for axis in rows.axes])
    k.emit(grid=numel(y.shape[:-1]), flops=size * taps * 8, bytes=(size + numel(x.shape)) * 4)

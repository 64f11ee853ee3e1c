"""TopK, CumSum, CumProd: along one axis, one line per grid item."""

from __future__ import annotations

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.errors import Unsupported
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, ceil_div, numel


def supports(node: Node, ctx: Context) -> bool:
    """Row-major numbers."""
    x = node.required(0)
    return is_native(x.dtype) and not x.layout


def split_at(shape: tuple[Dim, ...], axis: int) -> tuple[Dim, Dim, Dim]:
    """How many elements lie outside of an axis, along it and inside of it."""
    return numel(shape[:axis]), shape[axis], numel(shape[axis + 1 :])


SIDE = 64  # lines along an outer axis that are walked together: their elements are neighbours

BESIDE = f"""const int64_t pieces = (INNER + {SIDE - 1}) / {SIDE}, first = item % pieces * {SIDE};
    const int64_t at = item / pieces * LENGTH * INNER + first;
    const int64_t count = tl_min({SIDE}, INNER - first);"""
LINE = "const int64_t at = item / INNER * LENGTH * INNER + item % INNER;"


def emit_cumulative(node: Node, ctx: Context) -> None:
    """Running sums or products, forwards or backwards, with or without the element itself."""
    x, y = node.required(0), node.output
    axes = ctx.contents.dims(node.required(1))
    if axes is None or not isinstance(axes[0], int):
        raise Unsupported(f"{node.label}: its axis is not known when the model is compiled")
    if 0 in y.shape:
        return
    outer, length, inner = split_at(x.shape, axes[0] % len(x.shape))
    dtype = x.dtype
    sign, start = ("+", "0") if node.op == "CumSum" else ("*", "1")
    wide = register_type(dtype) if dtype.is_float else "uint64_t"
    element = f"({wide}){loaded(dtype, 'x[p]')}"
    beside = inner != 1
    total = "totals[c]" if beside else "total"
    step = f"{total} = {total} {sign} {element};"
    store = f"y[p] = {stored(dtype, f'({register_type(dtype)}){total}')};"
    order = [store, step] if attr(node, "exclusive") else [step, store]
    place = "LENGTH - 1 - i" if attr(node, "reverse") else "i"
    k = KernelBuilder(ctx, node, f"{node.op.lower()}_{dtype.value}")
    k.read("x", x)
    k.write("y", y)
    k.dims("LENGTH INNER", (length, inner))
    text = _CUMULATED_BESIDE if beside else _CUMULATED
    k.body(text.format(wide=wide, start=start, place=place, first=order[0], second=order[1]))
    grid = outer * (ceil_div(inner, SIDE) if beside else 1)
    k.emit(grid=grid, flops=numel(x.shape) * 4, bytes=size_of(x.tensor) * 2)


_CUMULATED = f"""
for (int64_t item = begin; item < end; item++) {{{{
    {LINE}
    {{wide}} total = {{start}};
    for (int64_t i = 0; i < LENGTH; i++) {{{{
        const int64_t p = at + ({{place}}) * INNER;
        {{first}}
        {{second}}
    }}}}
}}}}"""

_CUMULATED_BESIDE = f"""
for (int64_t item = begin; item < end; item++) {{{{
    {BESIDE}
    {{wide}} totals[{SIDE}];
    for (int64_t c = 0; c < count; c++)
        totals[c] = {{start}};
    for (int64_t i = 0; i < LENGTH; i++)
        for (int64_t c = 0; c < count; c++) {{{{
            const int64_t p = at + ({{place}}) * INNER + c;
            {{first}}
            {{second}}
        }}}}
}}}}"""


def emit_top_k(node: Node, ctx: Context) -> None:
    """The K largest or smallest, in order, by a heap of K; the lower index first among equals."""
    x, values, indices = node.required(0), node.outputs[0], node.outputs[1]
    if 0 in values.shape:
        return
    axis = int(attr(node, "axis")) % len(x.shape)
    outer, length, inner = split_at(x.shape, axis)
    dtype = x.dtype
    real = register_type(dtype)
    sign = ">" if attr(node, "largest") else "<"
    k = KernelBuilder(ctx, node, f"top_k_{dtype.value}")
    k.support(_HEAP.replace("REAL", real).replace("SIGN", sign))
    k.read("x", x)
    k.write("values", values)
    k.write("indices", indices)
    k.dims("LENGTH INNER K", (length, inner, values.shape[axis]))
    grid: Dim = outer * inner
    heap, items = "scratch", "1"
    if ctx.program.depends_on_data(values.shape[axis]):
        # Private memory is planned before the run: one thread, with memory of its own, does all.
        heap = k.write("memory", k.temp("heap", DType.U8, values.shape[axis] * 16))
        items, grid = k.dim("ITEMS", grid), 1
        k.body(f"if (K > LENGTH) {{ {k.fault('K is larger than the axis')} return; }}")
    else:
        k.scratch(values.shape[axis] * 16)
    k.body(
        f"""
tl_entry *const heap = (tl_entry *){heap};
for (int64_t item = begin * {items}; item < end * {items}; item++) {{
    {LINE}
    const int64_t to = item / INNER * K * INNER + item % INNER;
    int64_t count = 0;
    for (int64_t i = 0; i < LENGTH; i++) {{
        const tl_entry e = {{{loaded(dtype, "x[at + i * INNER]")}, i}};
        if (count < K) {{
            tl_sift_up(heap, count++, e);
        }} else if (tl_before(e, heap[0])) {{
            tl_sift_down(heap, count, e);
        }}
    }}
    /* The worst entry is on top: taken off one by one, they come in reverse. */
    while (count > 0) {{
        const tl_entry worst = heap[0];
        count--;
        if (count > 0)
            tl_sift_down(heap, count, heap[count]);
        values[to + count * INNER] = {stored(dtype, "worst.value")};
        indices[to + count * INNER] = worst.index;
    }}
}}"""
    )
    k.emit(grid=grid, flops=numel(x.shape) * 8, bytes=size_of(x.tensor))


_HEAP = """
typedef struct tl_entry {
    REAL value;
    int64_t index;
} tl_entry;

static inline int tl_before(tl_entry a, tl_entry b)
{
    return a.value SIGN b.value || (a.value == b.value && a.index < b.index);
}

/* A heap whose top is the entry that comes last in order. */
static inline void tl_sift_up(tl_entry *heap, int64_t at, tl_entry e)
{
    while (at > 0 && tl_before(heap[(at - 1) / 2], e)) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = e;
}

static inline void tl_sift_down(tl_entry *heap, int64_t count, tl_entry e)
{
    int64_t at = 0;
    for (int64_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && tl_before(heap[child], heap[child + 1]))
            child++;
        if (!tl_before(e, heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = e;
}
"""

"""Operators whose result has a size that data decides: one kernel counts, a second one writes.

The count becomes a dim between the two, so that the result has exactly the memory that it needs.
"""

from __future__ import annotations

from tuili.codegen.element_types import is_native, loaded
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.movement.fill import emit_range
from tuili.ir import Node, Value
from tuili.lower.program import ReadSymbol, View
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, Sym, dim_min, numel


def count_of(node: Node, ctx: Context) -> View:
    """Where a node's first kernel leaves the count: one int64."""
    return View(ctx.new_buffer(f"{node.outputs[0].name}.count", DType.I64, 8))


def take_count(node: Node, count: View, ctx: Context) -> Dim:
    """Make the count the dim that it stands for; returns the dim."""
    found = [symbol for value in node.outputs for symbol, _ in ctx.own_symbols(value)]
    for symbol in found:
        ctx.program.steps.append(ReadSymbol(symbol, count, 0))
    return Sym(found[0])


def supports(node: Node, ctx: Context) -> bool:
    """Elements that C reads, and a count that is not known before."""
    return is_native(node.required(0).dtype) and len(ctx.own_symbols(node.output)) == 1


# -- NonZero -----------------------------------------------------------------------------------


def emit_non_zero(node: Node, ctx: Context) -> None:
    """The indices of elements that are not zero, one row per axis."""
    x, count = node.required(0), count_of(node, ctx)
    test = f"{loaded(x.dtype, 'x[i]')} != 0"
    k = KernelBuilder(ctx, node, f"count_non_zero_{x.dtype.value}")
    k.read("x", x)
    k.write("count", count)
    k.dim("SIZE", numel(x.shape))
    k.body(
        f"""
int64_t found = 0;
for (int64_t i = 0; i < SIZE; i++)
    found += {test};
count[0] = found;"""
    )
    k.emit(grid=1)
    found = take_count(node, count, ctx)
    k = KernelBuilder(ctx, node, f"non_zero_{x.dtype.value}_{len(x.shape)}")
    k.read("x", x)
    k.write("y", node.output)
    k.dims("SIZE COUNT", (numel(x.shape), found))
    lines: list[str] = []
    for axis in reversed(range(len(x.shape))):
        size = k.dim(f"D{axis}", x.shape[axis])
        lines.append(f"y[{axis} * COUNT + at] = rest % {size}, rest /= {size};")
    k.body(
        f"""
int64_t at = 0;
for (int64_t i = 0; i < SIZE; i++)
    if ({test}) {{
        int64_t rest = i;
        (void)rest;
        {" ".join(lines)}
        at++;
    }}"""
    )
    k.emit(grid=1)


# -- Compress ----------------------------------------------------------------------------------


def emit_compress(node: Node, ctx: Context) -> None:
    """The slices along an axis, or elements, whose condition holds."""
    x, condition, count = node.required(0), node.required(1), count_of(node, ctx)
    axis = node.attrs.get("axis")
    outer: Dim = 1
    length, inner = numel(x.shape), x.dtype.itemsize
    if axis is not None:
        at = int(attr(node, "axis")) % len(x.shape)
        outer, length = numel(x.shape[:at]), x.shape[at]
        inner = numel(x.shape[at + 1 :]) * x.dtype.itemsize
    k = KernelBuilder(ctx, node, "count_true")
    k.read("condition", condition, "uint8_t")
    k.write("count", count)
    k.dims("LENGTH CONDITIONS", (length, numel(condition.shape)))
    fault = k.fault("a condition is true beyond the end of the axis")
    k.body(
        f"""
int64_t found = 0;
for (int64_t i = 0; i < CONDITIONS; i++)
    if (condition[i]) {{
        found += i < LENGTH;
        if (i >= LENGTH) {fault}
    }}
count[0] = found;"""
    )
    k.emit(grid=1)
    found = take_count(node, count, ctx)
    k = KernelBuilder(ctx, node, "compress")
    k.read("x", x, "uint8_t")
    k.read("condition", condition, "uint8_t")
    k.write("y", node.output, "uint8_t")
    k.dims("LENGTH CONDITIONS SIZE COUNT", (length, numel(condition.shape), inner, found))
    k.body(
        """
for (int64_t item = begin; item < end; item++) {
    uint8_t *to = y + item * COUNT * SIZE;
    for (int64_t i = 0; i < CONDITIONS && i < LENGTH; i++)
        if (condition[i]) {
            memcpy(to, x + (item * LENGTH + i) * SIZE, (size_t)SIZE);
            to += SIZE;
        }
}"""
    )
    k.emit(grid=outer, bytes=outer * length * inner)


# -- Range -------------------------------------------------------------------------------------


def supports_range(node: Node, ctx: Context) -> bool:
    """Numbers whose distance C computes."""
    return supports(node, ctx) and node.required(0).dtype is not DType.U64


def emit_late_range(node: Node, ctx: Context) -> None:
    """start + i * delta, as many as fit below the limit."""
    count, dtype = count_of(node, ctx), node.required(0).dtype
    k = KernelBuilder(ctx, node, f"count_range_{dtype.value}")
    kind = "double" if dtype.is_float else "int64_t"
    for slot, name in enumerate(("start", "limit", "delta")):
        k.read(name, node.required(slot))
        k.body(f"const {kind} {name}_of = {loaded(dtype, f'{name}[0]')};")
    k.write("count", count)
    fault = k.fault("the delta of a Range is 0; expected a step")
    most = "(double)(INT64_MAX / 16)"
    steps = "count[0] = tl_max(-tl_floordiv(start_of - limit_of, delta_of), 0);"
    if dtype.is_float:
        steps = (
            "const double steps = ceil((limit_of - start_of) / delta_of);\n"
            f"count[0] = steps > 0 ? (int64_t)(steps < {most} ? steps : {most}) : 0;"
        )
    k.body(f"count[0] = 0;\nif (delta_of == 0) {{ {fault} return; }}\n{steps}")
    k.emit(grid=1)
    take_count(node, count, ctx)
    emit_range(node, ctx)


# -- NonMaxSuppression -------------------------------------------------------------------------


def supports_suppression(node: Node, ctx: Context) -> bool:
    """float32 boxes; indices that fit 32 bits."""
    return supports(node, ctx) and node.required(0).dtype is DType.F32


def emit_non_max_suppression(node: Node, ctx: Context) -> None:
    """Per class the best boxes in order, without those that overlap a better one."""
    boxes, scores, count = node.required(0), node.required(1), count_of(node, ctx)
    batches, classes, candidates = scores.shape
    most = ctx.contents.dims(node.input(2))
    kept = dim_min(candidates, most[0]) if most and isinstance(most[0], int) else candidates
    k = KernelBuilder(
        ctx, node, f"suppress_{'center' if attr(node, 'center_point_box') else 'corner'}"
    )
    k.support(_SUPPRESS)
    k.read("boxes", boxes)
    k.read("scores", scores)
    k.body(f"const int64_t most = {_first(k, node.input(2), 'most_given', '0')};")
    k.body(f"const float most_overlap = {_first(k, node.input(3), 'overlap_given', '0.0f')};")
    k.body(f"const float least_score = {_first(k, node.input(4), 'score_given', '-INFINITY')};")
    keys = k.temp("keys", DType.U64, candidates)
    chosen = k.temp("chosen", DType.F32, candidates * 5)
    rows = k.temp("rows", DType.I32, batches * classes * kept * 2)
    k.write("heap", keys)
    k.write("chosen", chosen)
    k.write("rows", rows)
    k.write("count", count)
    k.dims("BATCHES CLASSES N", (batches, classes, candidates))
    k.body(_SUPPRESS_BODY.replace("CENTER", str(int(attr(node, "center_point_box")))))
    k.emit(grid=1)
    found = take_count(node, count, ctx)
    k = KernelBuilder(ctx, node, "suppressed_rows")
    k.read("rows", rows)
    k.write("y", node.output)
    k.dims("COUNT CLASSES", (found, classes))
    k.body(
        """
for (int64_t i = 0; i < COUNT; i++) {
    y[3 * i] = rows[2 * i] / CLASSES;
    y[3 * i + 1] = rows[2 * i] % CLASSES;
    y[3 * i + 2] = rows[2 * i + 1];
}"""
    )
    k.emit(grid=1)


def _first(k: KernelBuilder, value: Value | None, name: str, default: str) -> str:
    """The C of the first element of an optional input."""
    if value is None or numel(value.shape) == 0:
        return default
    return f"{k.read(name, value)}[0]"


_SUPPRESS = """
typedef struct tl_box {
    float y1, x1, y2, x2;
} tl_box;

static inline tl_box tl_corners(const float *b, int center)
{
    if (center)
        return (tl_box){b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2};
    return (tl_box){fminf(b[0], b[2]), fminf(b[1], b[3]), fmaxf(b[0], b[2]), fmaxf(b[1], b[3])};
}

/* Whether a box covers too much of one that was chosen: `chosen` has the edges and areas of up to
   n, each by itself, so that a few are compared at a time. */
static inline int tl_overlaps(const float *restrict chosen, int64_t n, int64_t kept, tl_box b,
                              float most)
{
    const float *const y1 = chosen, *const x1 = y1 + n, *const y2 = x1 + n, *const x2 = y2 + n;
    const float *const area = x2 + n, own = (b.y2 - b.y1) * (b.x2 - b.x1);
    for (int64_t from = 0; from < kept; from += 32) {
        const int64_t until = tl_min(from + 32, kept);
        int32_t hit = 0;
        for (int64_t i = from; i < until; i++) {
            const float top = y1[i] > b.y1 ? y1[i] : b.y1, end = y2[i] < b.y2 ? y2[i] : b.y2;
            const float left = x1[i] > b.x1 ? x1[i] : b.x1, right = x2[i] < b.x2 ? x2[i] : b.x2;
            const float height = end - top > 0 ? end - top : 0;
            const float width = right - left > 0 ? right - left : 0;
            const float shared = height * width, all = area[i] + own - shared;
            const float overlap = (all > 0 ? shared : 0) / (all > 0 ? all : 1);
            hit |= !(overlap <= most);
        }
        if (hit)
            return 1;
    }
    return 0;
}

/* Ascending keys are descending scores, and among equal ones ascending indices. */
static inline uint64_t tl_key(float score, int64_t index)
{
    uint32_t bits;
    score += 0.0f;              /* no negative zero */
    memcpy(&bits, &score, 4);
    bits = bits >> 31 ? bits : ~(bits | UINT32_C(0x80000000));
    return (uint64_t)bits << 32 | (uint32_t)index;
}

static inline void tl_sink(uint64_t *heap, int64_t count, int64_t at)
{
    const uint64_t key = heap[at];
    for (int64_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        child += child + 1 < count && heap[child + 1] < heap[child];
        if (heap[child] >= key)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = key;
}
"""

_SUPPRESS_BODY = """
int64_t total = 0;
for (int64_t item = 0; item < BATCHES * CLASSES; item++) {
    const float *const score = scores + item * N, *const box = boxes + item / CLASSES * N * 4;
    int64_t left = 0, kept = 0;
    for (int64_t i = 0; i < N; i++)
        if (score[i] > least_score)
            heap[left++] = tl_key(score[i], i);
    for (int64_t i = left / 2 - 1; i >= 0; i--)
        tl_sink(heap, left, i);
    while (left > 0 && kept < most) {
        const int64_t index = (int64_t)(heap[0] & UINT32_MAX);
        heap[0] = heap[--left];
        if (left > 0)
            tl_sink(heap, left, 0);
        const tl_box candidate = tl_corners(box + index * 4, CENTER);
        if (tl_overlaps(chosen, N, kept, candidate, most_overlap))
            continue;
        chosen[kept] = candidate.y1, chosen[N + kept] = candidate.x1;
        chosen[2 * N + kept] = candidate.y2, chosen[3 * N + kept] = candidate.x2;
        chosen[4 * N + kept] = (candidate.y2 - candidate.y1) * (candidate.x2 - candidate.x1);
        kept++;
        rows[2 * total] = (int32_t)item;
        rows[2 * total + 1] = (int32_t)index;
        total++;
    }
}
count[0] = total;"""

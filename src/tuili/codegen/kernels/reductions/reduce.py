"""Reductions over any axes: sums, means, extremes, products and norms.

Neighbouring axes of the same fate are merged. When the innermost axis is reduced, a grid item is
one result and rows are reduced as vectors; when it is kept, a grid item is a vector of results.
Types other than f32 and f64 take one element at a time: see `plain_reduce`.

Long sums are sums over pieces, so that rounding grows with a piece and with the number of pieces,
not with the length: variances that cancel need those digits (Higham, "The Accuracy of Floating
Point Summation", 1993).
"""

from __future__ import annotations

from tuili.codegen.doubles import DOUBLES, half_lanes, in_doubles
from tuili.codegen.element_types import is_native
from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.codegen.kernels.reductions.axes import Axes, Loops, merge_axes
from tuili.codegen.kernels.reductions.kinds import KINDS, Kind
from tuili.codegen.kernels.reductions.plain_reduce import emit_plain
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, ceil_div, numel

PIECE = 32  # elements that are added one by one where a vector has those of neighbouring results
GROUP = 4  # vectors of neighbouring results that are made together
LEAST_WIDE = 256  # results of a row: a strip of fewer is not worth its memory
STRIP = 32  # such groups at most that a thread makes together, row after row
ROWS = 8  # that are added to a strip at a time
LEAST_ITEMS = 16  # of the grid, where there may be: threads share them
LONG_PIECE = 8192  # of a row, whose lanes have totals of their own


_EACH = "for (int64_t c = 0; c < wide; c++)"
_PIECES = "for (int64_t l = 0; l < LENGTH; l += {})"

OPERATORS = (*KINDS, "ReduceLogSumExp", "GlobalAveragePool", "GlobalMaxPool")
_SPATIAL = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}


def reduced_axes(node: Node, ctx: Context) -> tuple[int, ...] | None:
    """The axes that go; None when they are not known."""
    rank = len(node.required(0).shape)
    if node.op in _SPATIAL:
        return tuple(range(2, rank))
    axes = ctx.contents.dims(node.input(1))
    if axes is None and node.input(1) is not None:
        return None
    if not axes:
        return () if attr(node, "noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted({int(axis) % rank for axis in axes if isinstance(axis, int)}))


def supports(node: Node, ctx: Context) -> bool:
    """Known axes; a blocked layout when channels are kept."""
    x, y = node.required(0), node.output
    axes = reduced_axes(node, ctx)
    if axes is None or not is_native(x.dtype) or x.layout != y.layout:
        return False
    if x.layout:
        return 1 not in axes and len(y.shape) == len(x.shape) and node.op != "ReduceLogSumExp"
    return x.dtype is not DType.BOOL or node.op in ("ReduceMax", "ReduceMin")


def emit(node: Node, ctx: Context) -> None:
    """Choose by the innermost axis and the type."""
    axes = reduced_axes(node, ctx)
    assert axes is not None  # supports
    x, y = node.required(0), node.output
    if 0 in y.shape:
        return
    # In a blocked layout the lanes are the last axis, and kept.
    merged = merge_axes(physical_shape(x.tensor), axes)
    op = _SPATIAL.get(node.op, node.op)
    k = KernelBuilder(ctx, node, f"{_snake(op)}_{'' if y.dtype is DType.F32 else y.dtype.value}")
    k.name = k.name.rstrip("_")
    k.read("x", x)
    k.write("y", y)
    k.dim("COUNT", numel([x.shape[axis] for axis in axes]))
    kind = KINDS.get(op)
    if kind is None or x.dtype not in (DType.F32, DType.F64):
        grid = emit_plain(k, op, merged, x.dtype)
    else:
        grid = _in_vectors(k, kind, merged, x.dtype)
    k.emit(grid=grid, flops=numel(x.shape), bytes=size_of(x.tensor) + size_of(y.tensor))


def _snake(op: str) -> str:
    return "reduce_" + op.removeprefix("Reduce").lower()


def _in_vectors(k: KernelBuilder, kind: Kind, axes: Axes, dtype: DType) -> Dim:
    """Vectors of floats, or of doubles by the same text."""
    is_double = dtype is DType.F64
    plan = _Reduction(k, kind, axes, is_double=is_double)
    if is_double:
        k.support(DOUBLES)
    if axes.reduced and not axes.reduced[-1]:
        target = half_lanes(k.ctx.target) if is_double else k.ctx.target
        text, grid = plan.columns(target.lanes)
    elif axes.reduced == (False, True) and _is_short(axes.dims[-1]):
        text, grid = plan.short_rows()
    else:
        support = row_support(kind.row)
        k.support(in_doubles(support) if is_double else support)
        text, grid = plan.rows()
    k.body(in_doubles(text) if is_double else text)
    return grid


class _Reduction:
    """The text of one reduction, of floats, and its grid."""

    def __init__(
        self, k: KernelBuilder, kind: Kind, axes: Axes, *, is_double: bool = False
    ) -> None:
        self.kind, self.axes, self.is_double = kind, axes, is_double
        self.loops = Loops(k, "float")

    def short_rows(self) -> tuple[str, Dim]:
        """Rows of a few elements: the compiler makes vectors of neighbouring results."""
        kind = self.kind
        count, length = self.axes.dims
        step = kind.step.format(t="total", x=f"x[item * {length} + l]", p="s_")
        text = f"""
for (int64_t item = begin; item < end; item++) {{
    float total = {kind.first};
    for (int64_t l = 0; l < {length}; l++)
        total = {step};
    y[item] = {kind.end.format(t="total", p="s_", count="(float)COUNT")};
}}"""
        return text, count

    def rows(self) -> tuple[str, Dim]:
        """The innermost axis is reduced: every result from rows."""
        kept, gone = self.axes.pick(reduced=False), self.axes.pick(reduced=True)
        length = gone[-1][0] if gone else 1
        self.loops.declare("LENGTH", (length,))
        inner = self.loops.around(gone[:-1], self._long_row(length))
        end = self.kind.end.format(t="total", p="s_", count="(float)COUNT")
        lines = [f"float total = {self.kind.first};", *inner, f"y[item] = {end};"]
        return self.loops.items(kept, lines), numel([dim for dim, _ in kept])

    def _long_row(self, length: Dim) -> list[str]:
        """A row, in pieces if it is long."""
        whole = isinstance(length, int) and length <= LONG_PIECE
        at, count = ("at", "LENGTH") if whole else ("at + l", f"tl_min({LONG_PIECE}, LENGTH - l)")
        row = f"tl_row_{self.kind.row}(from + {at}, {count})"
        step = f"total = {self.kind.join.format(t='total', x=row, p='s_')};"
        return [step] if whole else [_PIECES.format(LONG_PIECE), f"    {step}"]

    def columns(self, lanes: int) -> tuple[str, Dim]:
        """The innermost axis is kept: vectors of results, as many as fill whole cache lines."""
        kept = self.axes.pick(reduced=False)
        inner, outer = kept[-1][0], kept[:-1]
        if self._is_in_strips(inner):
            return self._strips(lanes)
        group = _group(inner, numel([dim for dim, _ in outer]), lanes)
        blocks = ceil_div(inner, group * lanes)
        self.loops.declare("INNER BLOCKS", (inner, blocks))
        lines = [f"int64_t column = item % BLOCKS * {group} * V;"]
        single = self._single()
        if group == 1:
            lines += single
        elif isinstance(inner, int) and inner % (group * lanes) == 0:
            lines += self._beside(group)
        else:
            lines += [
                f"if (column + {group} * V <= INNER) {{",
                *indent(self._beside(group)),
                "} else {",
                "    for (; column < INNER; column += V) {",
                *indent(indent(single)),
                "    }",
                "}",
            ]
        text = self.loops.items(outer, lines, outer="item / BLOCKS")
        return text, numel([dim for dim, _ in outer]) * blocks

    def _is_in_strips(self, inner: Dim) -> bool:
        length = self._gone()[-1][0]
        return isinstance(length, int) and length >= PIECE and _is_wide(inner)

    def _strips(self, lanes: int) -> tuple[str, Dim]:
        """Strips of results, as long as what a thread has to do: memory is read row after row."""
        kept = self.axes.pick(reduced=False)
        inner, outer = kept[-1][0], kept[:-1]
        blocks = ceil_div(inner, GROUP * lanes)
        self.loops.declare("INNER BLOCKS", (inner, blocks))
        self.loops.k.scratch(2 * STRIP * GROUP * lanes * (8 if self.is_double else 4))
        end = self.kind.end.format(t="total[c]", p="s_", count="(float)COUNT")
        lines = [
            "const int64_t block = item % BLOCKS;",
            f"items = tl_min(tl_min(end - item, BLOCKS - block), {STRIP});",
            f"const int64_t column = block * {GROUP} * V;",
            f"const int64_t wide = tl_min(items * {GROUP} * V, INNER - column);",
            f"float *const total = (float *)scratch, *const part = total + {STRIP * GROUP} * V;",
            f"{_EACH}",
            f"    total[c] = {self.kind.first};",
            *self.loops.around(self._gone()[:-1], self._pieces()),
            f"{_EACH}",
            f"    y[outer * INNER + column + c] = {end};",
        ]
        text = self.loops.items(outer, lines, outer="item / BLOCKS", many=True)
        return text, numel([dim for dim, _ in outer]) * blocks

    def _pieces(self) -> list[str]:
        """The innermost reduced loop around a strip: totals of a piece come to those of all."""
        return [
            "for (int64_t l = 0; l < LENGTH;) {",
            f"    const int64_t stop = tl_min(l + {PIECE}, LENGTH);",
            f"    {_EACH}",
            f"        part[c] = {self.kind.first};",
            *indent(self._rows_down(ROWS)),
            *indent(self._rows_down(1)),
            f"    {_EACH}",
            f"        total[c] = {self.kind.join.format(t='total[c]', x='part[c]', p='s_')};",
            "}",
        ]

    def _rows_down(self, rows: int) -> list[str]:
        """Some rows at a time, added to the parts."""

        def add(load: str, store: str) -> list[str]:
            step = self.kind.step.format(t="p", x="e", p="v_")
            return [
                f"vf p = {load.format('part + c')};",
                *(
                    f"{{ const vf e = {load.format(f'from + column + at + {r} * STRIDE + c')}; "
                    f"p = {step}; }}"
                    for r in range(rows)
                ),
                store,
            ]

        return [
            f"for (; l + {rows} <= stop; l += {rows}, at += {rows} * STRIDE) {{",
            "    int64_t c = 0;",
            "    for (; c + V <= wide; c += V) {",
            *indent(indent(add("v_load({})", "v_store(part + c, p);"))),
            "    }",
            "    if (c < wide) {",
            *indent(indent(add("v_loadn({}, wide - c)", "v_storen(part + c, p, wide - c);"))),
            "    }",
            "}",
        ]

    def _single(self) -> list[str]:
        """One vector of results, which may be a part of one."""
        end = self.kind.end.format(t="total", p="v_", count="v_set1((float)COUNT)")

        def block(load: str, store: str) -> list[str]:
            loops = self._paired(load)
            return [f"vf total = v_set1({self.kind.first});", *loops, store.format(end)]

        return [
            "const int64_t used = INNER - column, to = outer * INNER + column;",
            "if (used >= V) {",
            *indent(block("v_load({})", "v_store(y + to, {});")),
            "} else {",
            *indent(block("v_loadn({}, used)", "v_storen(y + to, {}, used);")),
            "}",
        ]

    def _paired(self, load: str) -> list[str]:
        """The reduced loops; a piece of the innermost one feeds two totals by turns."""
        kind, gone = self.kind, self._gone()
        first, second = (kind.step.format(t=t, x="e", p="v_") for t in ("first", "second"))
        element, other = (load.format(f"from + column + at{add}") for add in ("", " + STRIDE"))
        inner = [
            "for (int64_t l = 0; l < LENGTH;) {",
            f"    const int64_t stop = tl_min(l + {PIECE}, LENGTH);",
            f"    vf first = v_set1({kind.first}), second = first;",
            "    for (; l + 2 <= stop; l += 2, at += 2 * STRIDE) {",
            f"        {{ const vf e = {element}; first = {first}; }}",
            f"        {{ const vf e = {other}; second = {second}; }}",
            "    }",
            f"    if (l < stop) {{ const vf e = {element}; first = {first}; l++; }}",
            f"    first = {kind.join.format(t='first', x='second', p='v_')};",
            f"    total = {kind.join.format(t='total', x='first', p='v_')};",
            "}",
        ]
        return self.loops.around(gone[:-1], inner)

    def _beside(self, group: int) -> list[str]:
        """Some whole vectors of results, with a total each."""
        kind, gone = self.kind, self._gone()
        each = range(group)
        step = kind.step.format(t="part{0}", x="e", p="v_")
        join = kind.join.format(t="total{0}", x="part{0}", p="v_")
        end = kind.end.format(t="total{0}", p="v_", count="v_set1((float)COUNT)")
        load = "{{ const vf e = v_load(from + column + at + {0} * V); part{0} = " + step + "; }}"
        inner = [
            "for (int64_t l = 0; l < LENGTH;) {",
            f"    const int64_t stop = tl_min(l + {PIECE}, LENGTH);",
            *(f"    vf part{i} = v_set1({kind.first});" for i in each),
            "    for (; l < stop; l++, at += STRIDE) {",
            *("        " + load.format(i) for i in each),
            "    }",
            *(f"    total{i} = {join.format(i)};" for i in each),
            "}",
        ]
        return [
            *(f"vf total{i} = v_set1({kind.first});" for i in each),
            *self.loops.around(gone[:-1], inner),
            *(f"v_store(y + outer * INNER + column + {i} * V, {end.format(i)});" for i in each),
        ]

    def _gone(self) -> list[tuple[Dim, Dim]]:
        gone = self.axes.pick(reduced=True) or [(1, 0)]
        self.loops.declare("LENGTH STRIDE", gone[-1])
        return gone


def _is_wide(inner: Dim) -> bool:
    """Whether rows of results are long enough to be read as strips."""
    return isinstance(inner, int) and inner >= LEAST_WIDE


def _group(inner: Dim, outer: Dim, lanes: int) -> int:
    """How many vectors of results are made together: whole lines, and work for all threads."""
    if not isinstance(inner, int):
        return GROUP
    group = GROUP
    while group > 1 and (
        inner < group * lanes
        or (isinstance(outer, int) and outer * inner < LEAST_ITEMS * group * lanes)
    ):
        group //= 2
    return group


def _is_short(length: Dim) -> bool:
    return isinstance(length, int) and length <= 8

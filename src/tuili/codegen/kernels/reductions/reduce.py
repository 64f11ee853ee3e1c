"""Reductions over any axes: sums, means, extremes, products and norms.

Neighbouring axes of the same fate are merged. When the innermost axis is reduced, a grid item is
one result and rows are reduced as vectors; when it is kept, a grid item is a vector of results.
Types other than f32 take one element at a time, in a total wide enough.

Long sums are sums over pieces, so that rounding grows with a piece and with the number of pieces,
not with the length: variances that cancel need those digits (Higham, "The Accuracy of Floating
Point Summation", 1993).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuili.codegen.element_types import is_native, loaded, stored
from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.codegen.strides import contiguous
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, ceil_div, numel

PIECE = 32  # elements that are added one by one where a vector has those of neighbouring results
LONG_PIECE = 8192  # of a row, whose lanes have totals of their own


@dataclass(frozen=True, slots=True)
class _Kind:
    """A reduction: its row function, step over a total, first total, and what ends it."""

    row: str
    step: str  # {t} total, {x} element, {p} prefix
    start: str = "0"
    end: str = "{t}"


_KINDS: dict[str, _Kind] = {
    "ReduceSum": _Kind("sum", "{t} + {x}"),
    "ReduceMean": _Kind("sum", "{t} + {x}", end="{t} / {count}"),
    "ReduceL1": _Kind("abs", "{t} + {p}abs({x})"),
    "ReduceL2": _Kind("squares", "{x} * {x} + {t}", end="{p}sqrt({t})"),
    "ReduceSumSquare": _Kind("squares", "{x} * {x} + {t}"),
    "ReduceLogSum": _Kind("sum", "{t} + {x}", end="{p}log({t})"),
    "ReduceProd": _Kind("product", "{t} * {x}", start="1"),
    "ReduceMax": _Kind("max", "{p}maximum({x}, {t})", start="-INFINITY"),
    "ReduceMin": _Kind("min", "{p}minimum({x}, {t})", start="INFINITY"),
}

# The steps for whole numbers; extremes start from the type's own limits.
_WHOLE = {
    "ReduceL1": "{t} + ({x} < 0 ? -{x} : {x})",
    "ReduceMax": "{x} > {t} ? {x} : {t}",
    "ReduceMin": "{x} < {t} ? {x} : {t}",
}

_PIECES = "for (int64_t l = 0; l < LENGTH; l += {})"

OPERATORS = (*_KINDS, "ReduceLogSumExp", "GlobalAveragePool", "GlobalMaxPool")
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


@dataclass(frozen=True, slots=True)
class _Axes:
    """Merged axes of the input, outermost first: sizes, strides, whether they are reduced."""

    dims: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    reduced: tuple[bool, ...]

    def pick(self, *, reduced: bool) -> list[tuple[Dim, Dim]]:
        """(size, stride) of the axes of one fate."""
        rows = zip(self.dims, self.strides, self.reduced, strict=True)
        return [(dim, stride) for dim, stride, gone in rows if gone == reduced]


def merge_axes(shape: Sequence[Dim], axes: Sequence[int]) -> _Axes:
    """Neighbouring axes of the same fate as one; axes of size 1 dropped."""
    dims: list[Dim] = []
    strides: list[Dim] = []
    fates: list[bool] = []
    for axis, (dim, stride) in enumerate(zip(shape, contiguous(shape), strict=True)):
        if dim == 1:
            continue
        if fates and fates[-1] == (axis in axes):
            dims[-1], strides[-1] = dims[-1] * dim, stride
            continue
        dims.append(dim)
        strides.append(stride)
        fates.append(axis in axes)
    return _Axes(tuple(dims), tuple(strides), tuple(fates))


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
    plan = _Reduction(k, op, merged, x.dtype)
    if x.dtype is not DType.F32 or op == "ReduceLogSumExp":
        grid = plan.plain()
    elif merged.reduced and not merged.reduced[-1]:
        grid = plan.columns(ctx.target.lanes)
    elif merged.reduced == (False, True) and _is_short(merged.dims[-1]):
        grid = plan.short_rows()
    else:
        grid = plan.rows()
    k.emit(grid=grid, flops=numel(x.shape), bytes=size_of(x.tensor) + size_of(y.tensor))


def _snake(op: str) -> str:
    return "reduce_" + op.removeprefix("Reduce").lower()


class _Reduction:
    """The loops of one reduction."""

    def __init__(self, k: KernelBuilder, op: str, axes: _Axes, dtype: DType) -> None:
        self.k, self.op, self.axes, self.dtype = k, op, axes, dtype
        self._declared: set[str] = set()

    def _dims(self, names: str, dims: Sequence[Dim]) -> None:
        """Declare dims, once: two passes over the same axes share them."""
        for name, dim in zip(names.split(), dims, strict=True):
            if name not in self._declared:
                self.k.dim(name, dim)
                self._declared.add(name)

    def short_rows(self) -> Dim:
        """Rows of a few elements: the compiler makes vectors of neighbouring results."""
        kind = _KINDS[self.op]
        count, length = self.axes.dims
        step = kind.step.format(t="total", x=f"x[item * {length} + l]", p="s_")
        self.k.body(
            f"""
for (int64_t item = begin; item < end; item++) {{
    float total = {self._start(kind)};
    for (int64_t l = 0; l < {length}; l++)
        total = {step};
    y[item] = {self._end(kind, "total", "s_", "(float)COUNT")};
}}"""
        )
        return count

    def rows(self) -> Dim:
        """The innermost axis is reduced: every result from rows."""
        kind = _KINDS[self.op]
        self.k.support(row_support(kind.row))
        kept, gone = self.axes.pick(reduced=False), self.axes.pick(reduced=True)
        length = gone[-1][0] if gone else 1
        self._dims("LENGTH", (length,))
        inner = self._loops(gone[:-1], self._long_row(kind, length))
        end = self._end(kind, "total", "s_", "(float)COUNT")
        lines = [f"float total = {self._start(kind)};", *inner, f"y[item] = {end};"]
        self._items([dim for dim, _ in kept], [step for _, step in kept], lines)
        return numel([dim for dim, _ in kept])

    def _long_row(self, kind: _Kind, length: Dim) -> list[str]:
        """A row, in pieces if it is long."""
        whole = isinstance(length, int) and length <= LONG_PIECE
        at, count = ("at", "LENGTH") if whole else ("at + l", f"tl_min({LONG_PIECE}, LENGTH - l)")
        row = f"tl_row_{kind.row}(from + {at}, {count})"
        step = f"total = {_join(kind).format(t='total', x=row, p='s_')};"
        return [step] if whole else [_PIECES.format(LONG_PIECE), f"    {step}"]

    def columns(self, lanes: int) -> Dim:
        """The innermost axis is kept: a vector of results at a time."""
        kind = _KINDS[self.op]
        kept, gone = self.axes.pick(reduced=False), self.axes.pick(reduced=True)
        gone = gone or [(1, 0)]
        inner = kept[-1][0]
        columns = ceil_div(inner, lanes)
        self._dims("INNER COLUMNS", (inner, columns))
        start = f"v_set1({self._start(kind)})"
        end = self._end(kind, "total", "v_", "v_set1((float)COUNT)")

        def block(load: str, store: str) -> list[str]:
            def step(total: str, offset: str) -> tuple[str, str]:
                element = load.format(f"from + at{offset}")
                return f"{total} = {kind.step.format(t=total, x='e', p='v_')};", element

            lines = [f"vf total = {start};"]
            return [*lines, *self._paired(gone, kind, start, step), store.format(end)]

        whole = block("v_load({})", "v_store(y + to, {});")
        part = block("v_loadn({}, used)", "v_storen(y + to, {}, used);")
        lines = [
            "const int64_t used = INNER - column, to = outer * INNER + column;",
            "if (used >= V) {",
            *(f"    {line}" for line in whole),
            "} else {",
            *(f"    {line}" for line in part),
            "}",
        ]
        dims = [dim for dim, _ in kept[:-1]]
        self._items(dims, [step for _, step in kept[:-1]], lines, columns=True)
        return numel(dims) * columns

    def _paired(
        self,
        gone: Sequence[tuple[Dim, Dim]],
        kind: _Kind,
        start: str,
        step: Callable[[str, str], tuple[str, str]],
    ) -> list[str]:
        """The reduced loops; a piece of the innermost one feeds two totals by turns."""
        self._dims("LENGTH STRIDE", gone[-1])
        first, element = step("first", "")
        second, other = step("second", " + STRIDE")
        join = _join(kind)
        both = join.format(t="first", x="second", p="v_")
        inner = [
            "for (int64_t l = 0; l < LENGTH;) {",
            f"    const int64_t stop = tl_min(l + {PIECE}, LENGTH);",
            f"    vf first = {start}, second = first;",
            "    for (; l + 2 <= stop; l += 2, at += 2 * STRIDE) {",
            f"        {{ const vf e = {element}; {first} }}",
            f"        {{ const vf e = {other}; {second} }}",
            "    }",
            f"    if (l < stop) {{ const vf e = {element}; {first} l++; }}",
            f"    first = {both};",
            f"    total = {join.format(t='total', x='first', p='v_')};",
            "}",
        ]
        return self._loops(gone[:-1], inner)

    def plain(self) -> Dim:
        """One element at a time, any type."""
        kept, gone = self.axes.pick(reduced=False), self.axes.pick(reduced=True)
        lines = self._plain_lines(gone)
        self._items([dim for dim, _ in kept], [step for _, step in kept], lines)
        return numel([dim for dim, _ in kept])

    def _plain_lines(self, gone: Sequence[tuple[Dim, Dim]]) -> list[str]:
        dtype = self.dtype
        wide = _wide_type(self.op, dtype)
        element = f"const {wide} e = ({wide}){loaded(dtype, 'from[at]')};"
        if self.op == "ReduceLogSumExp":
            return self._log_sum_exp(gone, wide, element)
        kind = _KINDS[self.op]
        prefix = "d_" if wide == "double" else "s_"
        step = kind.step if dtype.is_float else _WHOLE.get(self.op, kind.step)
        inner = [element, f"total = {step.format(t='total', x='e', p=prefix)};"]
        start = self._start(kind) if dtype.is_float else _whole_start(self.op, dtype)
        count = f"({wide})COUNT"
        end = kind.end.format(t="total", p=prefix, count=count)
        if not dtype.is_float and kind.end != "{t}":
            function = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}.get(self.op)
            mean = "(double)total / (double)COUNT"
            end = f"tl_to_int({mean if function is None else f'{function}((double)total)'})"
        result = stored(dtype, f"({dtype.c if not dtype.is_float else wide}){_wrapped(end)}")
        return [f"{wide} total = {start};", *self._loops(gone, inner), f"y[item] = {result};"]

    def _log_sum_exp(self, gone: Sequence[tuple[Dim, Dim]], wide: str, element: str) -> list[str]:
        prefix = "d_" if wide == "double" else "s_"
        first = self._loops(gone, [element, f"top = {prefix}max(e, top);"])
        second = self._loops(gone, [element, f"total += {prefix}exp(e - top);"])
        result = f"({self.dtype.c}){_wrapped(stored(self.dtype, f'{prefix}log(total) + top'))}"
        return [
            f"{wide} top = -INFINITY, total = 0;",
            *first,
            "if (!isfinite(top))",
            "    top = 0;",
            *second,
            f"y[item] = {result};",
        ]

    def _start(self, kind: _Kind) -> str:
        return kind.start if "INF" in kind.start else f"{kind.start}.0f"

    def _end(self, kind: _Kind, total: str, prefix: str, count: str) -> str:
        return kind.end.format(t=total, p=prefix, count=count)

    def _loops(self, gone: Sequence[tuple[Dim, Dim]], inner: Sequence[str]) -> list[str]:
        """Loops over reduced axes around statements that read `at`."""
        lines = list(inner)
        previous = "0"
        heads: list[str] = []
        for index, (dim, stride) in enumerate(gone):
            self._dims(f"R{index} RS{index}", (dim, stride))
            at = f"at{index}"
            heads.append(f"for (int64_t r{index} = 0; r{index} < R{index}; r{index}++) {{")
            heads.append(f"    const int64_t {at} = {previous} + r{index} * RS{index};")
            previous = at
        body = [f"int64_t at = {previous};", "(void)at;", *lines]
        depth = len(gone)
        text = [f"{'    ' * (index // 2)}{line}" for index, line in enumerate(heads)]
        text += [f"{'    ' * depth}{line}" for line in body] if depth else ["{", *body, "}"]
        return [*text, *(f"{'    ' * index}}}" for index in reversed(range(depth)))]

    def _items(
        self,
        dims: Sequence[Dim],
        strides: Sequence[Dim],
        lines: Sequence[str],
        *,
        columns: bool = False,
    ) -> None:
        """The loop over grid items: `from` is where the item's elements start."""
        outer = "item / COLUMNS" if columns else "item"
        head = [f"const int64_t outer = {outer};", "int64_t rest = outer;"]
        if columns:
            head.append("const int64_t column = item % COLUMNS * V;")
        terms = ["x", *(["column"] if columns else [])]
        for index in reversed(range(len(dims))):
            self._dims(f"K{index} KS{index}", (dims[index], strides[index]))
            head.append(f"const int64_t k{index} = rest % K{index};")
            head.append(f"rest /= K{index};")
            terms.append(f"k{index} * KS{index}")
        ctype = self.dtype.c
        head += ["(void)rest;", f"const {ctype} *const from = {' + '.join(terms)};"]
        text = "\n".join([*head, *lines])
        self.k.body(
            "for (int64_t item = begin; item < end; item++) {\n"
            + textwrap.indent(text, "    ")
            + "\n}"
        )


def _join(kind: _Kind) -> str:
    """Totals are joined as elements are, but for what has been done to those."""
    return "{t} + {x}" if kind.row in ("abs", "squares") else kind.step


def _is_short(length: Dim) -> bool:
    return isinstance(length, int) and length <= 8


def _wrapped(text: str) -> str:
    return f"({text})"


def _wide_type(op: str, dtype: DType) -> str:
    """The type of totals."""
    if dtype.is_float:
        return "double" if dtype is DType.F64 else "float"
    if op in ("ReduceMax", "ReduceMin"):
        return dtype.c
    # Sums wrap around, and may, in 64 bits.
    if op == "ReduceLogSumExp":
        return "double"
    return "uint64_t" if dtype.is_unsigned_int else "int64_t"


def _whole_start(op: str, dtype: DType) -> str:
    if op == "ReduceProd":
        return "1"
    if op not in ("ReduceMax", "ReduceMin"):
        return "0"
    if dtype is DType.BOOL:
        return "0" if op == "ReduceMax" else "1"
    size = dtype.bits
    if dtype.is_unsigned_int:
        return "0" if op == "ReduceMax" else f"UINT{size}_MAX"
    return f"INT{size}_{'MIN' if op == 'ReduceMax' else 'MAX'}"

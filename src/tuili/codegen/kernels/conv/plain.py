"""Row-major windows of any rank and type, without haste: convolution, its transpose, pools.

A grid item is one row of the output (the last axis), made in pieces. The loops over the other axes
and over the taps are printed for the rank; sizes may all be unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.rows import indent
from tuili.codegen.kernels.conv.shape import Axis, transposed_axes, window_axes
from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, numel

CONV_SLOTS, POOL_SLOTS = 3, 1
PIECE = 256  # outputs whose sums are kept at a time
_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)


def supports_plain_conv(node: Node, ctx: Context) -> bool:
    """Whether everything is row-major and of one floating-point type."""
    values = [value for value in (*node.inputs[:CONV_SLOTS], node.output) if value is not None]
    return node.output.dtype in _FLOATS and all(
        value.dtype is node.output.dtype and not value.layout for value in values
    )


def supports_plain_pool(node: Node, ctx: Context) -> bool:
    """Whether everything is row-major and C computes with the type."""
    x = node.required(0)
    return is_native(x.dtype) and not any(value.layout for value in (x, *node.outputs))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Names and loops of one kernel: I input sizes, O output sizes, K taps, S, D, P per axis."""

    axes: list[Axis]

    @property
    def last(self) -> int:
        return len(self.axes) - 1

    def declare(self, k: KernelBuilder) -> None:
        for index, axis in enumerate(self.axes):
            names = " ".join(f"{letter}{index}" for letter in "IOKSDPE")
            sizes = (axis.size, axis.out, axis.taps, axis.stride, axis.dilation, axis.pad, axis.end)
            k.dims(names, sizes)
            k.body(f"(void)I{index}, (void)O{index}, (void)P{index}, (void)E{index};")

    def split_item(self, channels: str) -> list[str]:
        """`o0`, `o1`, ..., `m` (channel) and `n` of a grid item."""
        lines = ["int64_t rest = item;"]
        for index in reversed(range(self.last)):
            lines += [f"const int64_t o{index} = rest % O{index};", f"rest /= O{index};"]
        return [*lines, f"const int64_t m = rest % {channels}, n = rest / {channels};", "(void)n;"]

    def tap_loops(self, body: Sequence[str], *, transposed: bool = False) -> list[str]:
        """Loops over all taps but those of the last axis; `i0`, `i1`, ... are inside the input."""
        lines = list(body)
        for index in reversed(range(self.last)):
            lines = [
                f"for (int64_t k{index} = 0; k{index} < K{index}; k{index}++) {{",
                *indent(self._position(index, transposed=transposed)),
                *indent(lines),
                "}",
            ]
        return lines

    def _position(self, index: int, *, transposed: bool) -> list[str]:
        a = index
        if transposed:
            return [
                f"const int64_t t{a} = o{a} + P{a} - k{a} * D{a}, i{a} = t{a} / S{a};",
                f"if (t{a} < 0 || t{a} % S{a} != 0 || i{a} >= I{a})",
                "    continue;",
            ]
        return [
            f"const int64_t i{a} = o{a} * S{a} - P{a} + k{a} * D{a};",
            f"if (i{a} < 0 || i{a} >= I{a})",
            "    continue;",
        ]

    def index(self, start: str, letter: str, size: str, *, to: int) -> str:
        """A row-major index: `start` of the outer axes, then axes 0 .. to - 1."""
        text = start
        for a in range(to):
            text = f"({text} * {size}{a} + {letter}{a})"
        return text

    @property
    def range_of_last(self) -> list[str]:
        """`low` .. `high`: the outputs of the piece whose tap kl of the last axis is inside."""
        z = self.last
        return [
            f"const int64_t start = kl * D{z} - P{z};",
            f"const int64_t low = tl_max(left, tl_floordiv(S{z} - 1 - start, S{z}));",
            f"const int64_t high = tl_min(right, tl_floordiv(I{z} - start + S{z} - 1, S{z}));",
        ]


# -- convolution -------------------------------------------------------------------------------


def emit_plain_conv(node: Node, ctx: Context) -> None:
    """Conv: every tap adds a stretch of an input row to the sums."""
    x, w = node.required(0), node.required(1)
    rows = _Rows(window_axes(node, w.shape[2:]))
    k = _begin(node, ctx, "conv", rows)
    k.dims("C M GC GM", _groups(x.shape[1], node.output.shape[1], attr(node, "group")))
    z = rows.last
    weight = loaded(w.dtype, f"w[{rows.index('(m * GC + c)', 'k', 'K', to=z)} * K{z} + kl]")
    source = rows.index("(n * C + m / GM * GC + c)", "i", "I", to=z)
    inner = [
        f"const {x.dtype.c} *const xr = x + {source} * I{z};",
        f"for (int64_t kl = 0; kl < K{z}; kl++) {{",
        *indent(rows.range_of_last),
        f"    const acc_t weight = {weight};",
        "    for (int64_t o = low; o < high; o++)",
        f"        sums[o - left] += (acc_t){loaded(x.dtype, f'xr[o * S{z} + start]')} * weight;",
        "}",
    ]
    channels = ["for (int64_t c = 0; c < GC; c++) {", *indent(rows.tap_loops(inner)), "}"]
    _finish_conv(k, node, rows, channels, numel(w.shape[1:]))


def emit_plain_transpose(node: Node, ctx: Context) -> None:
    """ConvTranspose: every input element adds its taps to the sums."""
    x, w = node.required(0), node.required(1)
    rows = _Rows(transposed_axes(node, w.shape[2:]))
    k = _begin(node, ctx, "conv_transpose", rows)
    k.dims("C M GC GM", _groups(x.shape[1], node.output.shape[1], attr(node, "group")))
    z = rows.last
    inputs = "(m / GM * GC + c)"
    weight = rows.index(f"({inputs} * GM + m % GM)", "k", "K", to=z)
    source = rows.index(f"(n * C + {inputs})", "i", "I", to=z)
    inner = [
        f"const {x.dtype.c} *const xr = x + {source} * I{z};",
        f"for (int64_t kl = 0; kl < K{z}; kl++) {{",
        f"    const int64_t start = kl * D{z} - P{z};",
        f"    const acc_t weight = {loaded(w.dtype, f'w[{weight} * K{z} + kl]')};",
        f"    const int64_t low = tl_max(0, tl_floordiv(left - start + S{z} - 1, S{z}));",
        f"    const int64_t high = tl_min(I{z}, tl_floordiv(right - start + S{z} - 1, S{z}));",
        "    for (int64_t i = low; i < high; i++)",
        f"        sums[i * S{z} + start - left] += (acc_t){loaded(x.dtype, 'xr[i]')} * weight;",
        "}",
    ]
    loops = rows.tap_loops(inner, transposed=True)
    channels = ["for (int64_t c = 0; c < GC; c++) {", *indent(loops), "}"]
    _finish_conv(k, node, rows, channels, numel(w.shape[2:]) * x.shape[1])


def _groups(ins: Dim, outs: Dim, groups: int) -> tuple[Dim, ...]:
    return ins, outs, ins // groups, outs // groups


def _begin(node: Node, ctx: Context, name: str, rows: _Rows) -> KernelBuilder:
    k = KernelBuilder(ctx, node, f"{name}{len(rows.axes)}d_{node.output.dtype.value}")
    k.read("x", node.required(0))
    for letter, value in (("w", node.input(1)), ("bias", node.input(2))):
        if value is not None:
            k.read(letter, value)
    k.write("y", node.output)
    rows.declare(k)
    return k


def _finish_conv(k: KernelBuilder, node: Node, rows: _Rows, loops: list[str], work: Dim) -> None:
    y = node.output
    z = rows.last
    epilogue = Epilogue(k, node, CONV_SLOTS)
    acc = "double" if y.dtype is DType.F64 else "float"
    bias = node.input(2)
    start = "0" if bias is None else loaded(bias.dtype, "bias[m]")
    statements, result = epilogue.scalar("sums[o - left]", f"item * O{z} + o", "m")
    piece = [
        f"const int64_t right = tl_min(left + {PIECE}, O{z});",
        f"acc_t sums[{PIECE}];",
        "for (int64_t o = left; o < right; o++)",
        f"    sums[o - left] = {start};",
        *loops,
        "for (int64_t o = left; o < right; o++) {",
        *indent(statements),
        f"    y[item * O{z} + o] = {stored(y.dtype, result)};",
        "}",
    ]
    lines = [
        f"typedef {acc} acc_t;",
        "(void)C;",
        "for (int64_t item = begin; item < end; item++) {",
        *indent(rows.split_item("M")),
        f"    for (int64_t left = 0; left < O{z}; left += {PIECE}) {{",
        *indent(piece, 2),
        "    }",
        "}",
    ]
    k.body("\n".join(lines))
    # Far from the vector rate: count each operation as four.
    k.emit(
        grid=numel(y.shape[:-1]), flops=numel(y.shape) * work * 8,
        bytes=(numel(y.shape) + numel(node.required(0).shape)) * y.dtype.itemsize,
    )  # fmt: skip


# -- pools -------------------------------------------------------------------------------------


def emit_plain_max_pool(node: Node, ctx: Context) -> None:
    """MaxPool, with the places of the largest elements when they are asked for."""
    x = node.required(0)
    lowest = "-INFINITY" if x.dtype.is_float else _lowest(x.dtype)
    places = node.outputs[1] if len(node.outputs) > 1 else None
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
    z = len(x.shape) - 3
    value = [f"sum += {loaded(x.dtype, f'xr[i{z}]')};", "count++;"]
    start = [f"{acc} sum = 0;", "int64_t count = 0;"]
    mean = f"sum / ({acc})count"
    if attr(node, "count_include_pad"):
        factors = [
            f"tl_min(K{a}, (I{a} + E{a} - (o{a} * S{a} - P{a}) + D{a} - 1) / D{a})"
            for a in range(z + 1)
        ]
        mean = f"sum / ({acc})({' * '.join(factors)})"
        start.append("(void)count;")
    _emit_pool(node, ctx, start, value, [f"y[item * O{z} + o{z}] = {stored(x.dtype, mean)};"])


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


def _emit_pool(
    node: Node,
    ctx: Context,
    start: list[str],
    value: list[str],
    store: list[str],
    places: Value | None = None,
) -> None:
    x, y = node.required(0), node.output
    rows = _Rows(window_axes(node, attr(node, "kernel_shape")))
    z = rows.last
    k = _begin(node, ctx, node.op.lower(), rows)
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
    size = numel(y.shape)
    taps = numel([axis.taps for axis in rows.axes])
    k.emit(grid=numel(y.shape[:-1]), flops=size * taps * 8, bytes=(size + numel(x.shape)) * 4)

"""Row-major convolutions of any rank and type, and their transposes, without haste.

A grid item is one row of the output (the last axis), made in pieces. The loops over the other axes
and over the taps are printed for the rank; sizes may all be unknown.
"""

from __future__ import annotations

from tuili.codegen.element_types import loaded, stored
from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.plain_rows import PIECE, PlainRows, begin_rows
from tuili.codegen.kernels.conv.shape import transposed_axes, window_axes
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, numel

CONV_SLOTS = 3
_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)


def supports_plain_conv(node: Node, ctx: Context) -> bool:
    """Whether everything is row-major and of one floating-point type."""
    values = [value for value in (*node.inputs[:CONV_SLOTS], node.output) if value is not None]
    return node.output.dtype in _FLOATS and all(
        value.dtype is node.output.dtype and not value.layout for value in values
    )


# -- convolution -------------------------------------------------------------------------------


def emit_plain_conv(node: Node, ctx: Context) -> None:
    """Conv: every tap adds a stretch of an input row to the sums."""
    x, w = node.required(0), node.required(1)
    rows = PlainRows(window_axes(node, w.shape[2:]))
    k = begin_rows(node, ctx, "conv", rows)
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
    rows = PlainRows(transposed_axes(node, w.shape[2:]))
    k = begin_rows(node, ctx, "conv_transpose", rows)
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


def _finish_conv(
    k: KernelBuilder, node: Node, rows: PlainRows, loops: list[str], work: Dim
) -> None:
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

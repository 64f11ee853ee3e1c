"""Convolution of blocked input to one plain channel: the heads of detectors and segmenters.

A blocked output would carry one channel in a whole vector. Here a lane is an input channel instead:
every pixel has a vector of partial sums, and V of them are added up across their lanes at once.
Covers Conv of any window, and ConvTranspose whose taps do not overlap (kernel equal to stride).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.rows import tap_range, tap_rows
from tuili.codegen.kernels.conv.shape import Axis, conv_shape, transposed_axes
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Array, DType

OWN_SLOTS = 3


def is_single(node: Node, block: int) -> bool:
    """Whether a node is of this kind, when its input comes in blocks of `block` channels."""
    weights, bias = node.required(1), node.input(2)
    known = weights.is_constant and (bias is None or bias.is_constant)
    f32 = node.required(0).dtype is DType.F32
    rank = len(node.required(0).shape)
    if not (known and f32 and rank in (3, 4) and attr(node, "group") == 1):
        return False
    if node.output.shape[1] != 1:
        return False
    if node.op == "Conv":
        return True
    axes = transposed_axes(node, weights.shape[2:])
    scattered = int(np.prod([axis.stride for axis in axes]))
    return block % scattered == 0 and all(_is_apart(axis) for axis in axes)


def _is_apart(axis: Axis) -> bool:
    """Whether every output has exactly one tap."""
    whole = axis.out == axis.size * axis.stride
    return axis.taps == axis.stride and axis.dilation == 1 and axis.pad == 0 and whole


def supports_single(node: Node, ctx: Context) -> bool:
    """Whether x is blocked, y plain and of one channel."""
    x, y = node.required(0), node.output
    layouts = x.layout == ctx.target.layout and not y.layout
    return layouts and is_single(node, ctx.target.block)


def emit_single(node: Node, ctx: Context) -> None:
    """A Conv node; a grid item is one row of the output."""
    weights = node.required(1).constant
    assert weights is not None  # supports_single
    shape = conv_shape(node, weights.shape[2:])
    taps = weights.reshape(weights.shape[1], shape.rows.taps, shape.columns.taps)
    k = _begin(node, ctx, f"conv{shape.rows.taps}x{shape.columns.taps}_single", taps)
    rows, columns = shape.rows, shape.columns
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("PT PL", (rows.pad, columns.pad))
    lanes, step = ctx.target.lanes, columns.stride
    full = _sums(_Pixels(lanes, step, rows, columns, None), shape.channels, lanes)
    single = _sums(_Pixels(1, step, rows, columns, "kw0 kw1"), shape.channels, lanes)
    interior = f"tl_max(left, tl_min(OW, (W + PL - {columns.reach} + {step}) / {step}))"
    one = [
        f"const int64_t w0 = ow * {step} - PL;",
        *tap_range("kw0", "kw1", "w0", "W", columns),
        *single,
        "to[ow] = v_sum(acc[0]);",
    ]
    body = [
        "(void)H, (void)PT;",
        "for (int64_t item = begin; item < end; item++) {",
        "    const int64_t n = item / OH, oh = item % OH;",
        "    float *const to = y + item * OW;",
        *indent(tap_rows(rows)),
        f"    const int64_t left = tl_min(OW, (PL + {step - 1}) / {step});",
        f"    const int64_t right = W + PL >= {columns.reach} ? {interior} : left;",
        "    int64_t ow = 0;",
        "    for (; ow < left; ow++) {",
        *indent(one, 2),
        "    }",
        "    for (; ow + V <= right; ow += V) {",
        f"        const int64_t w0 = ow * {step} - PL;",
        *indent(full, 2),
        "        v_store(to + ow, sum_each(acc));",
        "    }",
        "    for (; ow < OW; ow++) {",
        *indent(one, 2),
        "    }",
        *indent(_finish(k, node, "item * OW", "OW")),
        "}",
    ]
    k.body("\n".join(body))
    work = shape.batch * shape.pixels * shape.taps * shape.channels
    moved = shape.batch * (rows.size * columns.size * shape.channels + shape.pixels)
    k.emit(grid=shape.batch * rows.out, flops=work * 2, bytes=moved * 4)


def emit_single_transposed(node: Node, ctx: Context) -> None:
    """A ConvTranspose node; a grid item is one row of the input."""
    weights = node.required(1).constant
    assert weights is not None  # supports_single
    axes = transposed_axes(node, weights.shape[2:])
    rows, columns = axes if len(axes) == 2 else [Axis(1, 1, 1), axes[0]]
    lanes, channels = ctx.target.lanes, weights.shape[0]
    high, wide = rows.stride, columns.stride
    k = _begin(node, ctx, f"conv_transpose{high}x{wide}_single", weights.reshape(-1, high, wide))
    k.dims("H W OW", (rows.size, columns.size, columns.out))
    pixels = lanes // (high * wide)
    line = pixels * wide
    body = [
        "for (int64_t item = begin; item < end; item++) {",
        "    const int64_t n = item / H, h = item % H;",
        f"    float *const to = y + item * {high} * OW;",
        "    int64_t w0 = 0;",
        f"    for (; w0 + {pixels} <= W; w0 += {pixels}) {{",
        *indent(_spread(pixels, high, wide, channels, lanes), 2),
        "        float sums[V];",
        "        v_store(sums, sum_each(acc));",
        f"        for (int64_t i = 0; i < {high}; i++)",
        f"            memcpy(to + i * OW + w0 * {wide}, sums + i * {line}, {line * 4});",
        "    }",
        "    for (; w0 < W; w0++) {",
        *indent(_spread(1, high, wide, channels, lanes), 2),
        f"        for (int64_t i = 0; i < {high}; i++)",
        f"            for (int64_t j = 0; j < {wide}; j++)",
        f"                to[i * OW + w0 * {wide} + j] = v_sum(acc[i * {wide} + j]);",
        "    }",
        *indent(_finish(k, node, f"item * {high} * OW", f"{high} * OW")),
        "}",
    ]
    k.body("\n".join(body))
    batch = node.required(0).shape[0]
    inputs = batch * rows.size * columns.size
    k.emit(
        grid=batch * rows.size, flops=inputs * (high * wide * channels * 2),
        bytes=inputs * (channels + high * wide) * 4,
    )  # fmt: skip


def _begin(node: Node, ctx: Context, name: str, taps: Array) -> KernelBuilder:
    """The kernel with its pointers; weights [C, KH, KW] as [C / V][KH][KW][V]."""
    lanes = ctx.target.lanes
    channels, high, wide = taps.shape
    blocks = -(-channels // lanes)
    packed = np.zeros((blocks * lanes, high, wide), np.float32)
    packed[:channels] = taps
    k = KernelBuilder(ctx, node, name)
    k.read("x", node.required(0))
    k.write("y", node.output)
    k.weight("w", np.moveaxis(packed.reshape(blocks, lanes, high, wide), 1, -1))
    k.dim("CB", blocks)
    k.support(_sum_each(lanes))
    used = channels - (blocks - 1) * lanes
    mask = ", ".join("-1" if lane < used else "0" for lane in range(lanes))
    k.body(
        f"const vi real = {{{mask}}};  /* lanes of the last block that are channels */\n(void)real;"
    )
    return k


def _sum_each(lanes: int) -> str:
    """Lane j of the result is the sum of vector j."""
    lines = ["static inline vf sum_each(vf r[V])", "{"]
    step = 1
    while step < lanes:
        low = [j if not j & step else lanes + j - step for j in range(lanes)]
        high = [j + step if not j & step else lanes + j for j in range(lanes)]
        first, second = (", ".join(map(str, order)) for order in (low, high))
        lines += [
            f"    for (int i = 0; i < V; i += {2 * step})",
            f"        r[i] = __builtin_shufflevector(r[i], r[i + {step}], {first})",
            f"             + __builtin_shufflevector(r[i], r[i + {step}], {second});",
        ]
        step *= 2
    return "\n".join([*lines, "    return r[0];", "}"])


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Neighbouring pixels of a Conv row; `border` names the range of taps of a lone one."""

    count: int
    stride: int
    rows: Axis
    columns: Axis
    border: str | None


def _sums(pixels: _Pixels, channels: int, lanes: int) -> list[str]:
    """C for `acc[]`: sums by lane of the pixels from `w0` on."""
    taps = pixels.columns.taps
    low, high = (pixels.border or f"0 {taps}").split()
    row = f"((n * CB + b) * H + h + kh * {pixels.rows.dilation}) * W"
    place = f"({row} + w0 + kw * {pixels.columns.dilation}) * V"
    adds = [
        _add(f"acc[{p}]", f"xr + {p * pixels.stride} * V", "wv", channels, lanes)
        for p in range(pixels.count)
    ]
    return [
        f"vf acc[{max(pixels.count, 1)}] = {{{{0}}}};",
        "for (int64_t b = 0; b < CB; b++)",
        "    for (int64_t kh = kh0; kh < kh1; kh++)",
        f"        for (int64_t kw = {low}; kw < {high}; kw++) {{",
        f"            const float *const xr = x + {place};",
        f"            const vf wv = v_load(w + ((b * {pixels.rows.taps} + kh) * {taps} + kw) * V);",
        *indent(adds, 3),
        "        }",
    ]


def _add(acc: str, place: str, weight: str, channels: int, lanes: int) -> str:
    value = f"v_load({place})"
    if channels % lanes:
        value = f"(b + 1 < CB ? {value} : (vf)((vi){value} & real))"
    return f"{acc} += {value} * {weight};"


def _spread(pixels: int, high: int, wide: int, channels: int, lanes: int) -> list[str]:
    """C for `acc[]`, in the order (row, pixel, column) of the output."""
    lines = [
        f"vf acc[{pixels * high * wide}] = {{{{0}}}};",
        "for (int64_t b = 0; b < CB; b++) {",
        "    const float *const xr = x + (((n * CB + b) * H + h) * W + w0) * V;",
        f"    const float *const wr = w + b * {high * wide} * V;",
    ]
    value = "v_load(xr + {p} * V)"
    if channels % lanes:
        value = "(b + 1 < CB ? v_load(xr + {p} * V) : (vf)((vi)v_load(xr + {p} * V) & real))"
    lines += [f"    const vf x{p} = {value.format(p=p)};" for p in range(pixels)]
    for i in range(high):
        for j in range(wide):
            lines.append(f"    const vf w{i}_{j} = v_load(wr + {i * wide + j} * V);")
            lines += [
                f"    acc[{(i * pixels + p) * wide + j}] += x{p} * w{i}_{j};" for p in range(pixels)
            ]
    return [*lines, "}"]


def _finish(k: KernelBuilder, node: Node, start: str, count: str) -> list[str]:
    """Bias and epilogue over finished sums, while they are in the nearest cache."""
    epilogue = Epilogue(k, node, OWN_SLOTS)
    bias = node.input(2)
    if epilogue.empty and bias is None:
        return []
    plus = ""
    if bias is not None and bias.constant is not None:
        k.weight("bias", bias.constant.reshape(-1))
        plus = " + {}"
    vector, result = epilogue.vector(f"(v_load(y + at){plus.format('v_set1(bias[0])')})", "at", "0")
    scalar, last = epilogue.scalar(f"(y[at]{plus.format('bias[0]')})", "at", "0")
    return [
        f"int64_t at = {start};",
        f"const int64_t stop = at + {count};",
        "for (; at + V <= stop; at += V) {",
        *indent(vector),
        f"    v_store(y + at, {result});",
        "}",
        "for (; at < stop; at++) {",
        *indent(scalar),
        f"    y[at] = {last};",
        "}",
    ]

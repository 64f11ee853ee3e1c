"""DeformConv: a product as of any convolution, whose panels hold what lies at moved places.

For each tap and pixel of a panel the four neighbours of its place and their weights (the mask in
them, 0 outside the image) are found once, and serve all channels that move together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.columns import Operands, emit_product
from tuili.codegen.kernels.conv.product import Fill, Window, each_channel
from tuili.codegen.kernels.conv.shape import Axis, window_axes
from tuili.codegen.kernels.gemm.tile import Tile
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType

BIAS, MASK, SLOTS = 3, 4, 5
NEIGHBOURS = 4
_SUM = " + ".join(f"f[{n} * COLS + p] * xc[i[{n} * COLS + p]]" for n in range(NEIGHBOURS))


def supports_deform(node: Node, ctx: Context) -> bool:
    """Whether all is f32 and row-major, with known channels, taps and pads."""
    values = [value for value in (*node.inputs, node.output) if value is not None]
    if not all(value.dtype is DType.F32 and not value.layout for value in values):
        return False
    sizes = (node.required(0).shape[1], *node.required(1).shape)
    return len(node.required(0).shape) == 4 and all(isinstance(size, int) for size in sizes)


def emit_deform(node: Node, ctx: Context) -> None:
    """The product, with a fill of its own."""
    axes = window_axes(node, node.required(1).shape[2:])
    windows = [
        Window(
            axis.size,
            axis.out,
            axis.stride,
            tuple(tap * axis.dilation for tap in range(axis.taps)),
            axis.out,
        )
        for axis in axes
    ]
    operands = Operands(node.required(0), node.required(1), BIAS, SLOTS)
    emit_product(node, ctx, operands, windows, "deform_conv", partial(_fill, node, axes))


def _fill(
    node: Node, axes: list[Axis], k: KernelBuilder, windows: Sequence[Window], tile: Tile
) -> Fill:
    channels, parts = node.required(0).shape[1], attr(node, "offset_group")
    assert isinstance(channels, int)
    columns, taps = tile.columns(k.ctx.target.lanes), axes[0].taps * axes[1].taps
    k.read("offset", node.required(2))
    mask = node.input(MASK)
    if mask is not None:
        k.read("mask", mask)
    k.dims("P0 P1 PARTS PART", (axes[0].pad, axes[1].pad, parts, channels // parts))
    before = [
        "(void)from;",
        "int32_t oy[COLS], ox[COLS];",
        "for (int64_t p = 0; p < COLS; p++) {",
        "    const int64_t at = tl_min(first + p, PIX - 1);",
        "    oy[p] = (int32_t)(at / Q1), ox[p] = (int32_t)(at % Q1);",
        "}",
        "float *const part = tables;",
        f"int32_t *const near = (int32_t *)(tables + {NEIGHBOURS} * TAPS * COLS);",
    ]
    chunk = each_channel(
        [
            "const int64_t group = (g * GC + c) / PART;",
            "if (c == c0 || (g * GC + c) % PART == 0)",
            "    for (int64_t t = 0; t < TAPS; t++)",
            "        for (int64_t p = 0; p < COLS; p++) {",
            *_place(axes, "1" if mask is None else "mask[move * PIX + at]"),
            "        }",
            "for (int64_t t = 0; t < TAPS; t++, to_k += COLS) {",
            f"    const float *const f = part + t * {NEIGHBOURS} * COLS;",
            f"    const int32_t *const i = near + t * {NEIGHBOURS} * COLS;",
            '    _Pragma("GCC ivdep")',
            "    for (int64_t p = 0; p < COLS; p++)",
            f"        to_k[p] = {_SUM};",
            "}",
        ]
    )
    return Fill(before, chunk, NEIGHBOURS * 2 * 4 * taps * columns)


def _place(axes: list[Axis], mask: str) -> list[str]:
    """The neighbours of one tap at one pixel; a move of a million pixels is one to nowhere."""
    rows, lines = axes
    y = f"oy[p] * {rows.stride} - P0 + t / {lines.taps} * {rows.dilation}"
    x = f"ox[p] * {lines.stride} - P1 + t % {lines.taps} * {lines.dilation}"
    text = f"""
const int64_t at = tl_min(first + p, PIX - 1), move = (n * PARTS + group) * TAPS + t;
const float dy = offset[2 * move * PIX + at], dx = offset[(2 * move + 1) * PIX + at];
const int known = fabsf(dy) < 1e6f && fabsf(dx) < 1e6f;
const float fy = floorf(known ? dy : 0), fx = floorf(known ? dx : 0);
const int64_t top = {y} + (int64_t)fy, left = {x} + (int64_t)fx;
const float low = known ? dy - fy : 0, right = known ? dx - fx : 0;
const float m = known ? {mask} : 0;
const float a = top >= 0 && top < X0 ? m * (1 - low) : 0;
const float b = top >= -1 && top < X0 - 1 ? m * low : 0;
const float e = left >= 0 && left < X1 ? 1 - right : 0;
const float h = left >= -1 && left < X1 - 1 ? right : 0;
float *const f = part + t * {NEIGHBOURS} * COLS + p;
int32_t *const i = near + t * {NEIGHBOURS} * COLS + p;
f[0] = a * e, f[COLS] = a * h, f[2 * COLS] = b * e, f[3 * COLS] = b * h;
const int64_t i0 = tl_max(0, tl_min(top, X0 - 1)) * X1;
const int64_t i1 = tl_max(0, tl_min(top + 1, X0 - 1)) * X1;
const int64_t j0 = tl_max(0, tl_min(left, X1 - 1)), j1 = tl_max(0, tl_min(left + 1, X1 - 1));
i[0] = (int32_t)(i0 + j0), i[COLS] = (int32_t)(i0 + j1);
i[2 * COLS] = (int32_t)(i1 + j0), i[3 * COLS] = (int32_t)(i1 + j1);"""
    return [f"            {line}" for line in text.strip().split("\n")]

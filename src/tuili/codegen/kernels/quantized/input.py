"""The input of a quantized convolution as its kernel reads it: padded, shifted, in cells.

    x [N][CB][H][W][cell]  ->  [N][CB][HP][WP][cell], padding holding the zero point

Codes that are stored as they are, without padding, are read in place and cost nothing. Few channels
in row-major order become cells of four.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.shape import Axis, ConvShape
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.sums import known_zero
from tuili.ir import Node, Value, block_of
from tuili.lower.program import View
from tuili.tensors import Dim, DType


@dataclass(frozen=True, slots=True)
class QInput:
    """Where the kernel reads codes: a value or a view, and the shape of what is there."""

    source: Value | View
    blocks: int
    height: Dim
    width: Dim
    cell: int


def cell_of(x: Value, group: int) -> int:
    """Channels that lie side by side: a block, or as many as one group takes."""
    block = block_of(x.layout)
    channels = x.shape[1]
    assert isinstance(channels, int)
    return block if block > 1 else -(-channels // group) * group


def read_input(node: Node, ctx: Context, shape: ConvShape, dot: Dot) -> QInput:
    """The input of a QConv node; adds the call that copies it where that is needed."""
    x = node.required(0)
    cell = cell_of(x, dot.group)
    blocks = -(-shape.channels // cell)
    in_place = x.layout and dot.reads(x.dtype) and shape.rows.is_inside and shape.columns.is_inside
    if in_place:
        return QInput(x, blocks, shape.rows.size, shape.columns.size, cell)
    height, width = _span(shape.rows), _span(shape.columns)
    sizes = (shape.channels, height, width)
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    k = KernelBuilder(ctx, node, f"codes_{known}")
    dtype = {"int16_t": DType.I16, "uint8_t": DType.U8, "int8_t": DType.I8}[dot.ctype]
    count = shape.batch * blocks * height * width * cell
    padded = k.temp("codes", dtype, count)
    k.read("x", x)
    k.write("y", padded, dot.ctype)
    k.dims("C CB H W", (shape.channels, blocks, shape.rows.size, shape.columns.size))
    k.dims("HP WP PT PL", (height, width, shape.rows.pad, shape.columns.pad))
    zero = known_zero(node)
    if zero is None:
        k.read("zero", node.required(2))
    words = {
        "SHIFT": str(dot.shifts[x.dtype]),
        "ZERO": "zero[0]" if zero is None else str(zero),
        "CELL": str(cell),
        "IN": x.dtype.c,
        "OUT": dot.ctype,
    }
    text = _HEAD + (_BLOCKED if x.layout else _PLAIN)
    k.body(re.sub("|".join(words), lambda word: words[word[0]], text))
    k.emit(grid=shape.batch * blocks * height, bytes=count * dot.bytes)
    return QInput(padded, blocks, height, width, cell)


def _span(axis: Axis) -> Dim:
    """How much of a padded axis the windows cover."""
    return (axis.out - 1) * axis.stride + axis.reach


_HEAD = """
const int32_t shift = SHIFT, fill = ZERO + SHIFT;
"""

_BLOCKED = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP - PT, plane = item / HP;
    OUT *const to = y + item * WP * CELL;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, W + PL));
    for (int64_t i = 0; i < left * CELL; i++)
        to[i] = (OUT)fill;
    if (left < right) {
        const IN *const from = x + ((plane * H + h) * W + left - PL) * CELL;
        for (int64_t i = 0; i < (right - left) * CELL; i++)
            to[left * CELL + i] = (OUT)(from[i] + shift);
    }
    for (int64_t i = right * CELL; i < WP * CELL; i++)
        to[i] = (OUT)fill;
}
(void)C, (void)CB;
"""

_PLAIN = """
for (int64_t item = begin; item < end; item++) {
    const int64_t h = item % HP - PT, plane = item / HP, first = plane % CB * CELL;
    const IN *const from = x + (plane / CB * C + first) * H * W + h * W - PL;
    OUT *const to = y + item * WP * CELL;
    const int64_t left = h < 0 || h >= H ? WP : tl_min(PL, WP);
    const int64_t right = tl_max(left, tl_min(WP, W + PL));
    for (int64_t c = 0; c < CELL; c++) {
        const int64_t low = first + c < C ? left : WP, high = first + c < C ? right : WP;
        for (int64_t w = 0; w < low; w++)
            to[w * CELL + c] = (OUT)fill;
        for (int64_t w = low; w < high; w++)
            to[w * CELL + c] = (OUT)(from[c * H * W + w] + shift);
        for (int64_t w = high; w < WP; w++)
            to[w * CELL + c] = (OUT)fill;
    }
}
"""

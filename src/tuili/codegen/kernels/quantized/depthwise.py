"""QConv of every channel with its own window: codes as whole floats, which sum up exactly.

Every lane is a channel. A row of codes becomes floats once for all taps and pixels of a tile that
read it; f32 holds the sums of a window to the bit as long as they stay below 2^24. Channels per
vector are V, so that nothing is gained by narrower arithmetic, and a quarter of the bytes move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.rows import (
    Taps,
    bordered_tiles,
    full_tiles,
    known_tiles,
    tap_range,
    tap_rows,
)
from tuili.codegen.kernels.conv.shape import MOST_TAPS, ConvShape, conv_problem, conv_shape
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.sums import Sums, are_sums_known, known_zero
from tuili.codegen.text import indent
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, ceil_div

EXACT = 2**24  # whole floats below it are exact
ENOUGH_ITEMS = 128
MOST_NEAR = 5  # taps of a row whose weights may come from memory
_NO_SHIFT = Dot(1, "", DType.F32, {DType.U8: 0, DType.I8: 0}, "")


def supports(node: Node, ctx: Context) -> bool:
    """Whether each channel has its own window and f32 holds its sums exactly."""
    x, y, weights = node.required(0), node.output, node.required(1).constant
    blocked = x.layout == y.layout == ctx.target.layout and len(x.shape) in (3, 4)
    if not blocked or weights is None or not are_sums_known(node):
        return False
    largest = np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(1).max(initial=0)
    each = attr(node, "group") == x.shape[1] == y.shape[1]
    return each and int(largest) * 255 < EXACT and weights.shape[-1] <= MOST_TAPS


def emit(node: Node, ctx: Context) -> None:
    """One call; a grid item is one block of channels for one band of rows."""
    weights = node.required(1).constant
    assert weights is not None  # supports
    shape, lanes = conv_shape(node, weights.shape[2:]), ctx.target.lanes
    rows, columns = shape.rows, shape.columns
    blocks = -(-shape.channels // lanes)
    k = KernelBuilder(ctx, node, _name(shape))
    k.read("x", node.required(0))
    k.write("y", node.output)
    k.weight("w", _packed(weights, shape, blocks, lanes))
    sums = Sums(k, node, _NO_SHIFT, np.zeros(blocks * lanes, np.int32))
    zero = known_zero(node)
    band = _band(shape, blocks)
    bands = ceil_div(rows.out, band)
    k.dims("H W OH OW", (rows.size, columns.size, rows.out, columns.out))
    k.dims("PT PL CB BAND BANDS", (rows.pad, columns.pad, blocks, band, bands))
    load = "v_load_u8" if node.required(0).dtype is DType.U8 else "v_load_i8"
    tiles = _tiles(columns.out, ctx.target.registers, columns.taps)
    problem = conv_problem("QConv", shape, shape.channels, lanes)
    pixels = ctx.choose(node, problem, {f"{n} pixels": n for n in tiles})
    plan = _Plan(shape, pixels, load, node.required(0).dtype.c, zero)
    k.body(_Printer(plan, sums).body())
    items = shape.batch * blocks
    traffic = items * lanes * (rows.size * columns.size + shape.pixels)
    flops = shape.batch * shape.channels * shape.pixels * (2 * shape.taps)
    k.emit(grid=items * bands, flops=flops, bytes=traffic)


def _packed(weights: Array, shape: ConvShape, blocks: int, lanes: int) -> Array:
    """[C, 1, (KH,) KW] as [CB, KH, KW, V] in f32."""
    padded = np.zeros((blocks * lanes, shape.taps), np.float32)
    padded[: shape.channels] = weights.reshape(shape.channels, shape.taps)
    return padded.reshape(blocks, lanes, shape.taps).transpose(0, 2, 1)


def _name(shape: ConvShape) -> str:
    sizes = [shape.channels, shape.rows.size, shape.columns.size]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    return f"qdepthwise{shape.rows.taps}x{shape.columns.taps}s{shape.columns.stride}_{known}"


def _tiles(width: Dim, registers: int, taps: int) -> tuple[int, ...]:
    """Pixels of a tile, the likely best first.

    Fours, which are stored together: twelve where that leaves no crumbs. Weights then come from
    memory, which costs nothing as long as a row has few of them.
    """
    if taps > MOST_NEAR:
        most = max(2, min(14, registers - taps - 3))
        return (-(-width // max(1, -(-width // most))) if isinstance(width, int) else most,)
    is_crumbly = isinstance(width, int) and width > 12 and 0 < width % 12 < 4
    return (8, 12) if is_crumbly else (12, 8)


def _band(shape: ConvShape, blocks: int) -> Dim:
    images = shape.batch if isinstance(shape.batch, int) else 1
    wanted = -(-ENOUGH_ITEMS // max(1, blocks * images))
    return max(1, shape.rows.out // wanted) if isinstance(shape.rows.out, int) else 8


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the printer decides from."""

    shape: ConvShape
    pixels: int
    load: str
    ctype: str
    zero: int | None


class _Printer:
    """Prints the loops over items, rows and tiles."""

    def __init__(self, plan: _Plan, sums: Sums) -> None:
        self.plan = plan
        self.shape = plan.shape
        self.sums = sums

    def body(self) -> str:
        plan, shape = self.plan, self.shape
        middle = "(float)zero[0]" if plan.zero is None else f"{plan.zero}.0f"
        return "\n".join(
            [
                "(void)PT, (void)PL, (void)H, (void)CB;",
                f"const vf middle = v_set1({middle});",
                "(void)middle;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t band = item % BANDS, cb = item / BANDS % CB;",
                "    const int64_t n = item / (BANDS * CB);",
                f"    const {plan.ctype} *const xn = x + (n * CB + cb) * H * W * V;",
                f"    const float *const wn = w + cb * {shape.taps} * V;",
                f"    {self.sums.start('start', 'cb * V')}",
                "    for (int64_t oh = band * BAND; oh < tl_min((band + 1) * BAND, OH); oh++) {",
                *indent([*tap_rows(shape.rows), *self._row()], 2),
                "    }",
                "}",
            ]
        )

    def _row(self) -> list[str]:
        columns = self.shape.columns
        at = "const int64_t at = ((n * CB + cb) * OH + oh) * OW * V;"
        if self.shape.is_static:
            assert isinstance(columns.out, int)
            return [
                at,
                *known_tiles(columns, full_tiles(columns.out, self.plan.pixels), self._tile),
            ]
        return [at, *bordered_tiles(columns, self.plan.pixels, self._tile, self._border())]

    def _tile(self, pixels: int, taps: Taps) -> list[str]:
        columns = self.shape.columns
        return [
            f"const {self.plan.ctype} *const xw = xn + (ow * {columns.stride} - PL) * V;",
            *self._declare(pixels),
            "for (int64_t kh = kh0; kh < kh1; kh++) {",
            *indent(self._source()),
            *indent(self._columns(pixels, taps)),
            "}",
            *self._stores(pixels),
        ]

    def _declare(self, pixels: int) -> list[str]:
        names = ", ".join(f"acc{p} = {{0}}" for p in range(pixels))
        return [f"vf {names};"]

    def _source(self) -> list[str]:
        rows = self.shape.rows
        return [
            f"const {self.plan.ctype} *const xr = xw + (h + kh * {rows.dilation}) * W * V;",
            f"const float *const wr = wn + kh * {self.shape.columns.taps} * V;",
        ]

    def _code(self, place: str) -> str:
        text = f"{self.plan.load}({place})"
        return text if self.plan.zero == 0 else f"{text} - middle"

    def _columns(self, pixels: int, taps: Taps) -> list[str]:
        """Every column of codes once, for all pixels that have it under a tap."""
        axis = self.shape.columns
        users: dict[int, list[tuple[int, int]]] = {}
        for tap, (low, high) in enumerate(taps or [(0, pixels)] * axis.taps):
            for p in range(low, high):
                column = p * axis.stride + tap * axis.dilation
                users.setdefault(column, []).append((p, tap))
        lines = [f"const vf w{tap} = v_load(wr + {tap} * V);" for tap in range(axis.taps)]
        for column in sorted(users):
            adds = " ".join(f"acc{p} += a * w{tap};" for p, tap in users[column])
            lines.append(f"{{ const vf a = {self._code(f'xr + {column} * V')}; {adds} }}")
        return lines

    def _border(self) -> list[str]:
        """One pixel, some of whose taps may lie outside."""
        columns = self.shape.columns
        return [
            f"const int64_t w0 = ow * {columns.stride} - PL;",
            *tap_range("kw0", "kw1", "w0", "W", columns),
            f"const {self.plan.ctype} *const xw = xn + w0 * V;",
            *self._declare(1),
            "for (int64_t kh = kh0; kh < kh1; kh++) {",
            *indent(self._source()),
            "    for (int64_t kw = kw0; kw < kw1; kw++) {",
            f"        const vf a = {self._code(f'xr + kw * {columns.dilation} * V')};",
            "        acc0 += a * v_load(wr + kw * V);",
            "    }",
            "}",
            *self._stores(1),
        ]

    def _stores(self, pixels: int) -> list[str]:
        accs = [f"(v_to_int(acc{p}) + start)" for p in range(pixels)]
        return ["const int64_t to = at + ow * V;", *self.sums.stores(accs, "to", "cb * V")]

"""QConv: direct convolution of codes into blocked output, with everything after it in its stores.

A grid item is one panel of output vectors for one band of rows, as in `conv_direct`; here the input
is padded beforehand (`quantized_input`), so that every tile is an inner one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.rows import indent, print_panels, unknown_tiles
from tuili.codegen.kernels.conv.shape import ConvShape, conv_shape
from tuili.codegen.kernels.quantized.choice import plan_qconv
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.input import QInput, cell_of, read_input
from tuili.codegen.kernels.quantized.sums import Sums, are_sums_known
from tuili.codegen.kernels.quantized.tile import (
    Loop,
    Nest,
    pack_best,
    print_sums,
    read_panels,
)
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, ceil_div

BAND_BYTES = 96 * 1024  # of input that all panels read before the next band
ENOUGH_ITEMS = 32


def supports(node: Node, ctx: Context) -> bool:
    """Whether one group of known weights meets maps of rank 3 or 4, and the result is blocked."""
    x, y = node.required(0), node.output
    fits = len(x.shape) in (3, 4) and y.layout == ctx.target.layout and attr(node, "group") == 1
    return fits and x.layout in ("", ctx.target.layout) and are_sums_known(node)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the printer decides from."""

    shape: ConvShape
    tile: Tile
    lanes: int
    dot: Dot
    nest: Nest
    band: Dim  # rows; tiles when the map is one row


def emit(node: Node, ctx: Context) -> None:
    """The copy of the input where one is needed, then the convolution."""
    weights = node.required(1).constant
    assert weights is not None  # supports
    shape = conv_shape(node, weights.shape[2:]).flat()
    lanes, x = ctx.target.lanes, node.required(0)
    tile = plan_qconv(node, ctx)
    assert isinstance(tile, Tile)  # what fits Winograd has been taken by it
    dot, packed = pack_best(
        ctx.target, weights, tile, lambda dot: _in_steps(weights, shape, cell_of(x, dot.group), dot)
    )
    source = read_input(node, ctx, shape, dot)
    distances = _distances(shape, source, dot)
    nest = _nest(shape, source, dot, has_extra=bool(len(packed.extra)), is_flat=bool(distances))
    plan = _Plan(shape, tile, lanes, dot, nest, _band(shape, source, tile, dot))
    k = KernelBuilder(ctx, node, _name(shape))
    k.support(dot.text)
    k.read("x", source.source, dot.ctype)
    k.write("y", node.output)
    read_panels(k, packed, nest, distances)
    sums = Sums(k, node, dot, packed.sums)
    panels = len(packed.panels)
    bands = ceil_div(_units(shape, tile), plan.band)
    k.dims("OH OW", (shape.rows.out, shape.columns.out))
    k.dims("CB HP WP", (source.blocks, source.height, source.width))
    k.dims("PANELS BAND BANDS PANEL", (panels, plan.band, bands, packed.panels.shape[1]))
    k.dim("OB", -(-shape.outputs // lanes))
    k.body(_Printer(plan, sums).body())
    flops = shape.batch * shape.pixels * (2 * shape.outputs * shape.channels * shape.taps)
    traffic = shape.batch * source.blocks * source.height * source.width * source.cell
    traffic = traffic + packed.panels.size + shape.batch * shape.outputs * shape.pixels
    k.emit(grid=shape.batch * bands * panels, flops=flops, bytes=traffic)


def _in_steps(weights: Array, shape: ConvShape, cell: int, dot: Dot) -> Array:
    """[OC, C, (KH,) KW] as [OC, CB, KH, KW, quads, group]."""
    outputs, channels = weights.shape[:2]
    blocks = -(-channels // cell)
    full = weights.reshape(outputs, channels, shape.rows.taps, shape.columns.taps)
    padded = np.zeros((outputs, blocks * cell, *full.shape[2:]), weights.dtype)
    padded[:, :channels] = full
    cells = padded.reshape(outputs, blocks, -1, dot.group, *full.shape[2:])
    return cells.transpose(0, 1, 4, 5, 2, 3)


def _distances(shape: ConvShape, source: QInput, dot: Dot) -> list[int]:
    """How far one step of every loop and one quad move, in codes; empty when found at run time."""
    height, width, cell = source.height, source.width, source.cell
    if not isinstance(height, int) or not isinstance(width, int):
        return []
    rows, columns = shape.rows.dilation * width * cell, shape.columns.dilation * cell
    return [height * width * cell, rows, columns, dot.group]


def _nest(shape: ConvShape, source: QInput, dot: Dot, *, has_extra: bool, is_flat: bool) -> Nest:
    rows, columns, cell = shape.rows, shape.columns, source.cell
    loops = [
        Loop("cb", source.blocks, f"HP * WP * {cell}"),
        Loop("kh", rows.taps, f"WP * {cell * rows.dilation}"),
        Loop("kw", columns.taps, str(cell * columns.dilation)),
    ]
    pixel = str(cell * columns.stride)
    return Nest(loops, cell // dot.group, pixel, has_extra, is_flat)


def _name(shape: ConvShape) -> str:
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    return f"qconv{shape.rows.taps}x{shape.columns.taps}s{shape.columns.stride}_{known}"


def _units(shape: ConvShape, tile: Tile) -> Dim:
    """What bands are cut from: rows, or the tiles of the only row."""
    return ceil_div(shape.columns.out, tile.pixels) if shape.rows.out == 1 else shape.rows.out


def _band(shape: ConvShape, source: QInput, tile: Tile, dot: Dot) -> Dim:
    units = _units(shape, tile)
    each = tile.pixels if shape.rows.out == 1 else source.width
    each = each if isinstance(each, int) else 160
    size = each * source.blocks * source.cell * dot.bytes * shape.rows.stride
    room = max(1, BAND_BYTES // max(size, 1))
    if not isinstance(units, int):
        return room
    images = shape.batch if isinstance(shape.batch, int) else 1
    panels = -(-shape.outputs // 8)
    wanted = -(-ENOUGH_ITEMS // (panels * images))
    return max(1, min(room, -(-units // wanted)))


class _Printer:
    """Prints the loops over items, rows and tiles."""

    def __init__(self, plan: _Plan, sums: Sums) -> None:
        self.plan = plan
        self.sums = sums

    def body(self) -> str:
        plan = self.plan
        cell = f"{plan.nest.quads * plan.dot.group}"
        blocks = -(-plan.shape.outputs // plan.lanes)
        rows = print_panels(blocks, plan.tile.vectors, self._rows)
        return "\n".join(
            [
                "(void)OH, (void)HP, (void)OB;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t panel = item % PANELS, band = item / PANELS % BANDS;",
                "    const int64_t n = item / (PANELS * BANDS);",
                f"    const int64_t oc = panel * {plan.tile.vectors * plan.lanes};",
                f"    const {plan.dot.weights.c} *const wn = w + panel * PANEL;",
                f"    const {plan.dot.ctype} *const xn = x + n * CB * HP * WP * {cell};",
                *indent(plan.nest.extra_range),
                *indent(rows),
                "}",
            ]
        )

    def _rows(self, vectors: int) -> list[str]:
        starts = [self.sums.start(f"start{v}", f"oc + {v} * V") for v in range(vectors)]
        if self.plan.shape.rows.out == 1:
            return [*starts, "const int64_t oh = 0;", *self._row(vectors, is_band=True)]
        return [
            *starts,
            "for (int64_t oh = band * BAND; oh < tl_min((band + 1) * BAND, OH); oh++) {",
            *indent(self._row(vectors, is_band=False)),
            "}",
        ]

    def _row(self, vectors: int, *, is_band: bool) -> list[str]:
        """One row, or a band of tiles of the only one."""
        plan = self.plan
        cell = plan.nest.quads * plan.dot.group
        head = [
            f"const {plan.dot.ctype} *const xr = xn + oh * {plan.shape.rows.stride} * WP * {cell};"
        ]
        width = plan.shape.columns.out
        if not isinstance(width, int):
            pixels = plan.tile.pixels
            low = f"band * BAND * {pixels}" if is_band else "0"
            high = f"tl_min((band + 1) * BAND * {pixels}, OW)" if is_band else "OW"
            return [
                *head,
                f"int64_t ow = {low};",
                f"const int64_t stop = {high};",
                *unknown_tiles(pixels, lambda count, taps: self._tile(count, vectors), "stop"),
            ]
        count = -(-width // plan.tile.pixels)
        small, wider = divmod(width, count)
        low = "band * BAND" if is_band else "0"
        high = f"tl_min((band + 1) * BAND, {count})" if is_band else str(count)
        tiles = self._tile(small, vectors)
        if wider:
            tiles = [
                f"if (t < {wider}) {{",
                *indent(self._tile(small + 1, vectors)),
                "} else {",
                *indent(tiles),
                "}",
            ]
        return [
            *head,
            f"for (int64_t t = {low}; t < {high}; t++) {{",
            f"    const int64_t ow = t * {small} + tl_min(t, {wider});",
            *indent(tiles),
            "}",
        ]

    def _tile(self, pixels: int, vectors: int) -> list[str]:
        plan = self.plan
        tile = Tile(pixels, vectors)
        return [
            f"const {plan.dot.ctype} *const xp = xr + ow * {plan.nest.pixel};",
            *print_sums(plan.dot, plan.nest, tile, pixels),
            *self._stores(pixels, vectors),
        ]

    def _stores(self, pixels: int, vectors: int) -> list[str]:
        lines: list[str] = []
        for v in range(vectors):
            at = f"at{v}"
            block = f"oc / V + {v}"
            lines.append(f"const int64_t {at} = (((n * OB + {block}) * OH + oh) * OW + ow) * V;")
            accs = [f"acc{p}_{v}" for p in range(pixels)]
            lines += self.sums.stores(accs, at, f"oc + {v} * V")
        return lines

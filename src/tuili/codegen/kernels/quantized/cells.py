"""Direct convolution of cells: numbers that are multiplied in groups, the input padded beforehand.

A grid item is one panel of output vectors for one band of rows, as in `conv/direct`; every tile is
an inner one. What the numbers are, codes or halves of floats, is up to the `Dot` and the `Ends`.
Panels of grouped convolutions read the blocks of their groups, with zeros for weights of other
channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.plan import panel_blocks
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.rows import print_panels, unknown_tiles
from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.kernels.quantized.input import Cells, Run
from tuili.codegen.kernels.quantized.tile import AHEAD, Loop, Nest, Packed, print_sums, read_panels
from tuili.codegen.text import indent
from tuili.tensors import Array, Dim, ceil_div

BAND_BYTES = 96 * 1024  # of input that all panels read before the next band
ENOUGH_ITEMS = 32


@dataclass(frozen=True, slots=True)
class CellConv:
    """What decides how the loops are printed."""

    shape: ConvShape
    tile: Tile
    lanes: int
    dot: Dot
    groups: int = 1

    def reads(self, cell: int) -> tuple[tuple[int, ...], int]:
        """The first block of cells that each panel reads, and how many all read."""
        return panel_blocks(self.shape, self.groups, self.tile.vectors * self.lanes, cell)


def print_cells(
    k: KernelBuilder, conv: CellConv, source: Cells, packed: Packed, ends: Callable[[], Ends]
) -> None:
    """The kernel that convolves the cells of `source` with packed weights.

    `ends` declares what both ends of the sums read, after the weights.
    """
    shape, tile, lanes, dot = conv.shape, conv.tile, conv.lanes, conv.dot
    distances = _distances(shape, source, dot)
    first, depth = conv.reads(source.cell)
    run = source.run or Run(shape.columns.taps, source.cell // dot.group)
    nest = Nest(
        _loops(shape, source, depth, dot),
        run.quads,
        str(source.cell * shape.columns.stride),
        has_extra=bool(len(packed.extra)),
        is_flat=bool(distances),
        overlaps=run.quads * dot.group > source.cell * shape.columns.stride,
        ahead=AHEAD,
    )
    k.support(dot.text)
    k.read("x", source.source, dot.ctype)
    k.write("y", k.node.output)
    read_panels(k, packed, nest, distances)
    both = ends()
    panels, band = len(packed.panels), _band(shape, source, tile, dot)
    bands = ceil_div(_units(shape, tile), band)
    k.dims("OH OW", (shape.rows.out, shape.columns.out))
    k.dims("CB HP WP", (source.blocks, source.height, source.width))
    k.dims("PANELS BAND BANDS PANEL", (panels, band, bands, packed.panels.shape[1]))
    k.dim("OB", -(-shape.outputs // lanes))
    k.body(_Printer(conv, nest, both, first, source.cell).body())
    channels = min(shape.channels, depth * source.cell)
    flops = shape.batch * shape.pixels * (2 * shape.outputs * channels * shape.taps)
    traffic = shape.batch * source.blocks * source.height * source.width * source.cell * dot.bytes
    results = shape.batch * shape.outputs * shape.pixels * k.node.output.dtype.itemsize
    k.emit(
        grid=shape.batch * bands * panels,
        flops=flops,
        bytes=traffic + packed.panels.nbytes + results,
    )


def cell_steps(conv: CellConv, weights: Array, cell: int) -> Array:
    """[OC, C / groups, (KH,) KW] as [OC, blocks, KH, KW, quads, group]."""
    taps = (conv.shape.rows.taps, conv.shape.columns.taps)
    outputs, ins = weights.shape[:2]
    first, depth = conv.reads(cell)
    wide, per_group = conv.tile.vectors * conv.lanes, outputs // conv.groups
    full = np.zeros((outputs, depth * cell, *taps), weights.dtype)
    for output, own in enumerate(weights.reshape(outputs, ins, *taps)):
        begin = output // per_group * ins - first[output // wide] * cell
        full[output, begin : begin + ins] = own
    cells = full.reshape(outputs, depth, -1, conv.dot.group, *taps)
    return cells.transpose(0, 1, 4, 5, 2, 3)


def cell_name(prefix: str, shape: ConvShape) -> str:
    """The name of the kernel, its known sizes in it."""
    sizes = [shape.channels, shape.rows.size, shape.columns.size, shape.outputs]
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    return f"{prefix}{shape.rows.taps}x{shape.columns.taps}s{shape.columns.stride}_{known}"


def _distances(shape: ConvShape, source: Cells, dot: Dot) -> list[int]:
    """How far one step of every loop and one quad move, in codes; empty when found at run time."""
    height, width, cell = source.height, source.width, source.cell
    if not isinstance(height, int) or not isinstance(width, int):
        return []
    rows, columns = shape.rows.dilation * width * cell, shape.columns.dilation * cell
    if source.run is not None:
        columns = source.run.quads * dot.group
    return [height * width * cell, rows, columns, dot.group]


def _loops(shape: ConvShape, source: Cells, depth: int, dot: Dot) -> list[Loop]:
    """The loops over blocks and taps."""
    rows, columns, cell = shape.rows, shape.columns, source.cell
    along = Loop("kw", columns.taps, str(cell * columns.dilation))
    if source.run is not None:
        along = Loop("kw", source.run.count, str(source.run.quads * dot.group))
    return [
        Loop("cb", depth, f"HP * WP * {cell}"),
        Loop("kh", rows.taps, f"WP * {cell * rows.dilation}"),
        along,
    ]


def _units(shape: ConvShape, tile: Tile) -> Dim:
    """What bands are cut from: rows, or the tiles of the only row."""
    return ceil_div(shape.columns.out, tile.pixels) if shape.rows.out == 1 else shape.rows.out


def _band(shape: ConvShape, source: Cells, tile: Tile, dot: Dot) -> Dim:
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

    def __init__(
        self, conv: CellConv, nest: Nest, ends: Ends, first: Sequence[int], cell: int
    ) -> None:
        self.conv = conv
        self.nest = nest
        self.ends = ends
        self.first = first  # block of every panel
        self.cell = cell

    def body(self) -> str:
        conv = self.conv
        blocks = -(-conv.shape.outputs // conv.lanes)
        rows = print_panels(blocks, conv.tile.vectors, self._rows)
        firsts = ", ".join(map(str, self.first))
        table = [f"static const int32_t begins[{len(self.first)}] = {{{firsts}}};"]
        plane = "(n * CB + begins[panel])" if any(self.first) else "n * CB"
        return "\n".join(
            [
                *(table if any(self.first) else []),
                "(void)OH, (void)HP, (void)OB;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t panel = item % PANELS, band = item / PANELS % BANDS;",
                "    const int64_t n = item / (PANELS * BANDS);",
                f"    const int64_t oc = panel * {conv.tile.vectors * conv.lanes};",
                f"    const {conv.dot.weights.c} *const wn = w + panel * PANEL;",
                f"    const {conv.dot.ctype} *const xn = x + {plane} * HP * WP * {self.cell};",
                *indent(self.nest.extra_range),
                *indent(rows),
                "}",
            ]
        )

    def _rows(self, vectors: int) -> list[str]:
        starts = [self.ends.start(f"start{v}", f"oc + {v} * V") for v in range(vectors)]
        if self.conv.shape.rows.out == 1:
            return [*starts, "const int64_t oh = 0;", *self._row(vectors, is_band=True)]
        return [
            *starts,
            "for (int64_t oh = band * BAND; oh < tl_min((band + 1) * BAND, OH); oh++) {",
            *indent(self._row(vectors, is_band=False)),
            "}",
        ]

    def _row(self, vectors: int, *, is_band: bool) -> list[str]:
        """One row, or a band of tiles of the only one."""
        conv = self.conv
        start = f"xn + oh * {conv.shape.rows.stride} * WP * {self.cell}"
        head = [f"const {conv.dot.ctype} *const xr = {start};"]
        width = conv.shape.columns.out
        if not isinstance(width, int):
            pixels = conv.tile.pixels
            low = f"band * BAND * {pixels}" if is_band else "0"
            high = f"tl_min((band + 1) * BAND * {pixels}, OW)" if is_band else "OW"
            return [
                *head,
                f"int64_t ow = {low};",
                f"const int64_t stop = {high};",
                *unknown_tiles(pixels, lambda count, taps: self._tile(count, vectors), "stop"),
            ]
        count = -(-width // conv.tile.pixels)
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
        conv = self.conv
        tile = Tile(pixels, vectors)
        return [
            f"const {conv.dot.ctype} *const xp = xr + ow * {self.nest.pixel};",
            *print_sums(conv.dot, self.nest, tile, pixels),
            *self._stores(pixels, vectors),
        ]

    def _stores(self, pixels: int, vectors: int) -> list[str]:
        lines: list[str] = []
        for v in range(vectors):
            at = f"at{v}"
            block = f"oc / V + {v}"
            lines.append(f"const int64_t {at} = (((n * OB + {block}) * OH + oh) * OW + ow) * V;")
            accs = [f"acc{p}_{v}" for p in range(pixels)]
            lines += self.ends.stores(accs, at, f"oc + {v} * V")
        return lines

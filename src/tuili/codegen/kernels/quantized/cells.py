"""Direct convolution of cells: numbers that are multiplied in groups, the input padded beforehand.

A grid item is one panel of output vectors for one band of rows, as in `conv/direct`; every tile is
an inner one. What the numbers are, codes or halves of floats, is up to the `Dot` and the `Ends`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.rows import indent, print_panels, unknown_tiles
from tuili.codegen.kernels.conv.shape import ConvShape
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.kernels.quantized.input import Cells
from tuili.codegen.kernels.quantized.tile import Loop, Nest, Packed, print_sums, read_panels
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


def print_cells(
    k: KernelBuilder, conv: CellConv, source: Cells, packed: Packed, ends: Callable[[], Ends]
) -> None:
    """The kernel that convolves the cells of `source` with packed weights.

    `ends` declares what both ends of the sums read, after the weights.
    """
    shape, tile, lanes, dot = conv.shape, conv.tile, conv.lanes, conv.dot
    distances = _distances(shape, source, dot)
    nest = _nest(shape, source, dot, has_extra=bool(len(packed.extra)), is_flat=bool(distances))
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
    k.body(_Printer(conv, nest, both).body())
    flops = shape.batch * shape.pixels * (2 * shape.outputs * shape.channels * shape.taps)
    traffic = shape.batch * source.blocks * source.height * source.width * source.cell * dot.bytes
    results = shape.batch * shape.outputs * shape.pixels * k.node.output.dtype.itemsize
    k.emit(
        grid=shape.batch * bands * panels,
        flops=flops,
        bytes=traffic + packed.panels.nbytes + results,
    )


def cell_steps(weights: Array, shape: ConvShape, cell: int, dot: Dot) -> Array:
    """[OC, C, (KH,) KW] as [OC, CB, KH, KW, quads, group]."""
    outputs, channels = weights.shape[:2]
    blocks = -(-channels // cell)
    full = weights.reshape(outputs, channels, shape.rows.taps, shape.columns.taps)
    padded = np.zeros((outputs, blocks * cell, *full.shape[2:]), weights.dtype)
    padded[:, :channels] = full
    cells = padded.reshape(outputs, blocks, -1, dot.group, *full.shape[2:])
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
    return [height * width * cell, rows, columns, dot.group]


def _nest(shape: ConvShape, source: Cells, dot: Dot, *, has_extra: bool, is_flat: bool) -> Nest:
    rows, columns, cell = shape.rows, shape.columns, source.cell
    loops = [
        Loop("cb", source.blocks, f"HP * WP * {cell}"),
        Loop("kh", rows.taps, f"WP * {cell * rows.dilation}"),
        Loop("kw", columns.taps, str(cell * columns.dilation)),
    ]
    pixel = str(cell * columns.stride)
    return Nest(loops, cell // dot.group, pixel, has_extra, is_flat)


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

    def __init__(self, conv: CellConv, nest: Nest, ends: Ends) -> None:
        self.conv = conv
        self.nest = nest
        self.ends = ends

    def body(self) -> str:
        conv = self.conv
        cell = f"{self.nest.quads * conv.dot.group}"
        blocks = -(-conv.shape.outputs // conv.lanes)
        rows = print_panels(blocks, conv.tile.vectors, self._rows)
        return "\n".join(
            [
                "(void)OH, (void)HP, (void)OB;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t panel = item % PANELS, band = item / PANELS % BANDS;",
                "    const int64_t n = item / (PANELS * BANDS);",
                f"    const int64_t oc = panel * {conv.tile.vectors * conv.lanes};",
                f"    const {conv.dot.weights.c} *const wn = w + panel * PANEL;",
                f"    const {conv.dot.ctype} *const xn = x + n * CB * HP * WP * {cell};",
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
        cell = self.nest.quads * conv.dot.group
        head = [
            f"const {conv.dot.ctype} *const xr = xn + oh * {conv.shape.rows.stride} * WP * {cell};"
        ]
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

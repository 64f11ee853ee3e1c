"""Products of rows with known weights, in groups of numbers: the loops over items and tiles.

Rows are the pixels of the tile. What the numbers are, codes or halves of floats, is up to the `Dot`
and the `Ends`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.rows import print_panels, unknown_tiles
from tuili.codegen.kernels.quantized.copies import Stored
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.ends import Ends
from tuili.codegen.kernels.quantized.tile import Loop, Nest, Packed, print_sums, read_panels
from tuili.codegen.text import indent
from tuili.ir import Node, Value
from tuili.lower.program import View
from tuili.tensors import Array, Dim, ceil_div, numel

BAND_BYTES = 160 * 1024  # of rows that all panels read before the next band
ENOUGH_ITEMS = 16
QUADS = 4


@dataclass(frozen=True, slots=True)
class RowProduct:
    """Rows of `depth` numbers, `padded` where they are read, times weights of `width` columns."""

    source: Value | View
    rows: Dim
    depth: int
    padded: int
    width: int
    tile: Tile
    lanes: int
    dot: Dot


def print_product(
    k: KernelBuilder, product: RowProduct, packed: Packed, ends: Callable[[], Ends]
) -> None:
    """The kernel that multiplies rows with packed weights.

    `ends` declares what both ends of the sums read, after the weights.
    """
    dot, rows, padded, width = product.dot, product.rows, product.padded, product.width
    quads = quads_of(padded, dot)
    loop = Loop("q", padded // dot.group // quads, str(quads * dot.group))
    nest = Nest([loop], quads, str(padded), bool(len(packed.extra)), is_flat=True)
    k.support(dot.text)
    k.read("x", product.source, dot.ctype)
    k.write("y", k.node.output)
    read_panels(k, packed, nest, [quads * dot.group, dot.group])
    both = ends()
    panels = len(packed.panels)
    band = _band(rows, padded * dot.bytes, product.tile, panels)
    bands = ceil_div(rows, band)
    k.dims("M N K", (rows, width, padded))
    k.dims("PANELS BAND BANDS PANEL", (panels, band, bands, packed.panels.shape[1]))
    k.body(_Printer(product, nest, both).body())
    traffic = rows * (padded * dot.bytes + width * k.node.output.dtype.itemsize)
    k.emit(
        grid=bands * panels,
        flops=rows * (2 * product.depth * width),
        bytes=traffic + packed.panels.nbytes,
    )


def row_steps(weights: Array, dot: Dot) -> Array:
    """[K, N] as [N, loop, quads, group]."""
    depth, width = weights.shape
    padded = -(-depth // dot.group) * dot.group
    quads = quads_of(padded, dot)
    full = np.zeros((padded, width), weights.dtype)
    full[:depth] = weights
    return np.ascontiguousarray(full.T).reshape(width, -1, quads, dot.group)


def copy_rows(
    node: Node, ctx: Context, depth: int, padded: int, stored_in: Callable[[KernelBuilder], Stored]
) -> View:
    """Adds the call that copies the rows of a node's first input, zero padded."""
    x = node.required(0)
    rows = numel(x.shape[:-1])
    k = KernelBuilder(ctx, node, f"rows_{depth}")
    stored = stored_in(k)
    view = k.temp("rows", stored.dtype, rows * padded)
    k.read("x", x)
    k.write("y", view, stored.dtype.c)
    k.dims("K KP", (depth, padded))
    k.body(stored.print(_COPY))
    k.emit(grid=rows, bytes=rows * (depth * x.dtype.itemsize + padded * stored.dtype.itemsize))
    return view


def row_name(prefix: str, *dims: Dim) -> str:
    """The name of the kernel, its known sizes in it."""
    return f"{prefix}_" + "x".join(str(dim) for dim in dims if isinstance(dim, int))


def quads_of(padded: int, dot: Dot) -> int:
    """Groups that one pass of the loop takes."""
    return next(quads for quads in (QUADS, 2, 1) if padded // dot.group % quads == 0)


def _band(rows: Dim, row_bytes: int, tile: Tile, panels: int) -> int:
    """Rows of a grid item: a multiple of the tile's."""
    most = max(1, BAND_BYTES // max(row_bytes * tile.pixels, 1)) * tile.pixels
    if not isinstance(rows, int):
        return most
    wanted = -(-ENOUGH_ITEMS // panels)
    return min(most, max(1, -(-rows // wanted // tile.pixels)) * tile.pixels)


_COPY = """
for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < K; i++)
        y[row * KP + i] = @{x[row * K + i]};
    for (int64_t i = K; i < KP; i++)
        y[row * KP + i] = 0;
}
"""


class _Printer:
    """Prints the loops over items and tiles of rows."""

    def __init__(self, product: RowProduct, nest: Nest, ends: Ends) -> None:
        self.dot = product.dot
        self.tile = product.tile
        self.lanes = product.lanes
        self.width = product.width
        self.nest = nest
        self.ends = ends

    def body(self) -> str:
        wide = self.tile.vectors * self.lanes
        blocks = -(-self.width // self.lanes)
        lines = print_panels(blocks, self.tile.vectors, self._panel)
        return "\n".join(
            [
                "(void)BANDS, (void)N;",
                "for (int64_t item = begin; item < end; item++) {",
                f"    const int64_t panel = item % PANELS, oc = panel * {wide};",
                "    const int64_t band = item / PANELS;",
                "    const int64_t stop = tl_min((band + 1) * BAND, M);",
                f"    const {self.dot.weights.c} *const wn = w + panel * PANEL;",
                *indent(self.nest.extra_range),
                *indent(lines),
                "}",
            ]
        )

    def _panel(self, vectors: int) -> list[str]:
        def tile(count: int, taps: object) -> list[str]:
            return self._tile(count, vectors)

        starts = [self.ends.start(f"start{v}", f"oc + {v} * V") for v in range(vectors)]
        return [
            *starts,
            "int64_t ow = band * BAND;",
            *unknown_tiles(self.tile.pixels, tile, "stop"),
        ]

    def _tile(self, pixels: int, vectors: int) -> list[str]:
        tile = Tile(pixels, vectors)
        return [
            f"const {self.dot.ctype} *const xp = x + ow * K;",
            *print_sums(self.dot, self.nest, tile, pixels),
            *self._stores(pixels, vectors),
        ]

    def _stores(self, pixels: int, vectors: int) -> list[str]:
        if self.width % self.lanes == 0:
            return self._whole(pixels, vectors)
        return [
            f"if (oc + {vectors} * V <= N) {{",
            *indent(self._whole(pixels, vectors)),
            "} else {",
            *indent(self._partial(pixels, vectors)),
            "}",
        ]

    def _whole(self, pixels: int, vectors: int) -> list[str]:
        lines: list[str] = []
        for p in range(pixels):
            for v in range(vectors):
                where = f"(ow + {p}) * N + oc + {v} * V"
                statements, result = self.ends.vector(f"acc{p}_{v}", where, f"oc + {v} * V")
                store = self.ends.store(f"y + {where}", result)
                lines.append("{ " + " ".join([*statements, store]) + " }")
        return lines

    def _partial(self, pixels: int, vectors: int) -> list[str]:
        """The last columns, one by one."""
        lines = [f"{self.dot.scalar} sums[{pixels}][{vectors} * V];"]
        lines += [
            f"*({self.dot.sum}_any *)&sums[{p}][{v} * V] = acc{p}_{v};"
            for p in range(pixels)
            for v in range(vectors)
        ]
        where = "(ow + r) * N + oc + c"
        statements, result = self.ends.scalar("sums[r][c]", where, "oc + c")
        inner = [*statements, f"y[{where}] = {result};"]
        return [
            *lines,
            f"for (int64_t r = 0; r < {pixels}; r++)",
            "    for (int64_t c = 0; c < N - oc; c++) {",
            *indent(inner, 2),
            "    }",
        ]

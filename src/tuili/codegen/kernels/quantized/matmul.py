"""QMatMul: rows of codes times known weights, with everything after it in its stores.

Rows are the pixels of the tile. Codes that are stored as they are and whose depth is a multiple of
a group are read in place; others are copied first, zero padded.
"""

from __future__ import annotations

import re

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.rows import indent, print_panels, unknown_tiles
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.sums import Sums, are_sums_known
from tuili.codegen.kernels.quantized.tile import (
    Loop,
    Nest,
    pack_best,
    print_sums,
    rank_q_tiles,
    read_panels,
)
from tuili.ir import Node, Value
from tuili.lower.choice import dims_text
from tuili.lower.program import View
from tuili.tensors import Array, Dim, DType, ceil_div, numel

BAND_BYTES = 160 * 1024  # of rows that all panels read before the next band
ENOUGH_ITEMS = 16
QUADS = 4


def supports(node: Node, ctx: Context) -> bool:
    """Whether the weights are a known matrix, everything is row-major, and rows exist."""
    x, w = node.required(0), node.required(1)
    plain = not x.layout and not node.output.layout and len(w.shape) == 2
    return plain and are_sums_known(node) and len(x.shape) >= 1


def emit(node: Node, ctx: Context) -> None:
    """The copy of the rows where one is needed, then the product."""
    x, weights = node.required(0), node.required(1).constant
    assert weights is not None  # supports
    depth, width = weights.shape
    rows = numel(x.shape[:-1])
    lanes = ctx.target.lanes
    tiles = rank_q_tiles(ctx.target, rows, -(-width // lanes))
    problem = f"QMatMul {dims_text(rows, depth)} by {dims_text(depth, width)}"
    tile = ctx.choose(node, problem, {f"tile {tile}": tile for tile in tiles})
    dot, packed = pack_best(ctx.target, weights, tile, lambda dot: _in_steps(weights, dot))
    source, padded = _read_rows(node, ctx, dot, depth)
    quads = _quads(padded, dot)
    loop = Loop("q", padded // dot.group // quads, str(quads * dot.group))
    nest = Nest([loop], quads, str(padded), bool(len(packed.extra)), is_flat=True)
    k = KernelBuilder(ctx, node, _name(rows, depth, width))
    k.support(dot.text)
    k.read("x", source, dot.ctype)
    k.write("y", node.output)
    read_panels(k, packed, nest, [quads * dot.group, dot.group])
    sums = Sums(k, node, dot, packed.sums)
    panels = len(packed.panels)
    band = _band(rows, padded * dot.bytes, tile, panels)
    bands = ceil_div(rows, band)
    k.dims("M N K", (rows, width, padded))
    k.dims("PANELS BAND BANDS PANEL", (panels, band, bands, packed.panels.shape[1]))
    k.body(_Printer(dot, nest, tile, sums, lanes, width, rows).body())
    traffic = rows * (padded + width) + packed.panels.nbytes
    k.emit(grid=bands * panels, flops=rows * (2 * depth * width), bytes=traffic)


def _name(*dims: Dim) -> str:
    return "qmatmul_" + "x".join(str(dim) for dim in dims if isinstance(dim, int))


def _quads(padded: int, dot: Dot) -> int:
    """Groups that one pass of the loop takes."""
    return next(quads for quads in (QUADS, 2, 1) if padded // dot.group % quads == 0)


def _in_steps(weights: Array, dot: Dot) -> Array:
    """[K, N] as [N, loop, quads, group]."""
    depth, width = weights.shape
    padded = -(-depth // dot.group) * dot.group
    quads = _quads(padded, dot)
    full = np.zeros((padded, width), weights.dtype)
    full[:depth] = weights
    return np.ascontiguousarray(full.T).reshape(width, -1, quads, dot.group)


def _band(rows: Dim, row_bytes: int, tile: Tile, panels: int) -> int:
    """Rows of a grid item: a multiple of the tile's."""
    most = max(1, BAND_BYTES // max(row_bytes * tile.pixels, 1)) * tile.pixels
    if not isinstance(rows, int):
        return most
    wanted = -(-ENOUGH_ITEMS // panels)
    return min(most, max(1, -(-rows // wanted // tile.pixels)) * tile.pixels)


def _read_rows(node: Node, ctx: Context, dot: Dot, depth: int) -> tuple[Value | View, int]:
    """Where rows are read, and how long they are there."""
    x = node.required(0)
    padded = -(-depth // dot.group) * dot.group
    if dot.reads(x.dtype) and padded == depth:
        return x, depth
    rows = numel(x.shape[:-1])
    k = KernelBuilder(ctx, node, f"codes_{depth}")
    dtype = {"int16_t": DType.I16, "uint8_t": DType.U8, "int8_t": DType.I8}[dot.ctype]
    view = k.temp("codes", dtype, rows * padded)
    k.read("x", x)
    k.write("y", view, dot.ctype)
    k.dims("K KP", (depth, padded))
    words = {"SHIFT": str(dot.shifts[x.dtype]), "OUT": dot.ctype}
    k.body(re.sub("|".join(words), lambda word: words[word[0]], _COPY))
    k.emit(grid=rows, bytes=rows * (depth + padded * dot.bytes))
    return view, padded


# What is appended meets weights of zero.
_COPY = """
for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < K; i++)
        y[row * KP + i] = (OUT)(x[row * K + i] + SHIFT);
    for (int64_t i = K; i < KP; i++)
        y[row * KP + i] = 0;
}
"""


class _Printer:
    """Prints the loops over items and tiles of rows."""

    def __init__(
        self,
        dot: Dot,
        nest: Nest,
        tile: Tile,
        sums: Sums,
        lanes: int,
        width: int,
        rows: Dim,
    ) -> None:
        self.dot = dot
        self.nest = nest
        self.tile = tile
        self.sums = sums
        self.lanes = lanes
        self.width = width
        self.rows = rows

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

        starts = [self.sums.start(f"start{v}", f"oc + {v} * V") for v in range(vectors)]
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
                statements, result = self.sums.vector(f"acc{p}_{v}", where, f"oc + {v} * V")
                store = self.sums.store(f"y + {where}", result)
                lines.append("{ " + " ".join([*statements, store]) + " }")
        return lines

    def _partial(self, pixels: int, vectors: int) -> list[str]:
        """The last columns, one by one."""
        lines = [f"int32_t sums[{pixels}][{vectors} * V];"]
        lines += [
            f"*(vi_any *)&sums[{p}][{v} * V] = acc{p}_{v};"
            for p in range(pixels)
            for v in range(vectors)
        ]
        where = "(ow + r) * N + oc + c"
        statements, result = self.sums.scalar("sums[r][c]", where, "oc + c")
        inner = [*statements, f"y[{where}] = {result};"]
        return [
            *lines,
            f"for (int64_t r = 0; r < {pixels}; r++)",
            "    for (int64_t c = 0; c < N - oc; c++) {",
            *indent(inner, 2),
            "    }",
        ]

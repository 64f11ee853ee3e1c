"""Rows times panels of weights that become numbers on the way: codes of a few bits, half floats.

Codes become numbers in registers where a few rows meet a panel, in one pass or in a few tiles, and
memory is read at the speed of the codes. More rows share the numbers: those of a piece of k are
written to private memory that stays in the nearest cache, and the rows pass over them as in
`matmul`. Each way every sum is one chain over the same numbers: results are the same to the bit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.matmul import most_rows, read_bias
from tuili.codegen.kernels.gemm.rows import RowCut, RowLoop, cut_rows, print_tiles
from tuili.codegen.kernels.gemm.tile import Tile, split_rows, usual_tile
from tuili.codegen.targets import Target
from tuili.ir import Value
from tuili.tensors import ceil_div, numel

VECTORS = 4  # columns of a panel, in vectors
HALF = VECTORS // 2  # the columns that many rows meet together
NEAR_FLOATS = 4 * 1024  # numbers that stay in the first-level cache beside the rows
_SPARE = 6  # registers that a pass needs beside its sums


class NumberPanels(Protocol):
    """Panels of `VECTORS` vectors of columns, and C that makes numbers of what lies in them."""

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        ...

    @property
    def most_tiles(self) -> int | None:
        """Tiles of rows that had better make the numbers anew than share them; None: all."""
        ...

    @property
    def parameters(self) -> Sequence[str]:
        """Parameters of C functions, each ending in its name: pointers to what makes a panel."""
        ...

    def print_pointers(self) -> list[str]:
        """C that declares a pointer of each such name for `panel`."""
        ...

    def print_steps(self, vectors: range, each: list[str]) -> list[str]:
        """C for the steps from `k` until `stop`: numbers `w{v}` of some vectors, then `each`."""
        ...


@dataclass(frozen=True, slots=True)
class Product:
    """Sizes of rows [..., depth] times weights [depth, width]; `bytes` are those of the weights."""

    x: Value
    bias: Value | None
    depth: int
    width: int
    bytes: int
    own_slots: int


def emit_panels(k: KernelBuilder, ctx: Context, panels: NumberPanels, product: Product) -> None:
    """The rest of a kernel that reads x, y and its weights; an item is a panel times some rows."""
    x, depth, width = product.x, product.depth, product.width
    total, y = numel(x.shape[:-1]), k.node.output
    count = -(-width // panels.columns)
    # Half a panel is two vectors wide, whatever the distance of the rows.
    tile = usual_tile(ctx.target, stride_bytes=4, columns=width)
    assert tile.vectors == HALF
    cut = cut_rows(total, tile, most_rows(depth))
    bias = read_bias(k, product.bias, count * panels.columns)
    epilogue = Epilogue(k, k.node, product.own_slots)
    k.dims("M K N PANELS ROWS", (total, depth, width, count, cut.block))
    near = _near_depth(depth, HALF * ctx.target.lanes)
    lanes, ldb = ctx.target.lanes, str(HALF * ctx.target.lanes)
    loop = RowLoop(tile, lanes, cut.heights, width, bias, epilogue, ldb, depth=near)
    ways = _ways(ctx.target, cut, panels.most_tiles)
    printer = _Printer(panels, loop, ways)
    if ways.share:
        k.support(printer.halves())
        sums = cut.block if near else 0
        k.scratch((sums + (near or depth)) * HALF * lanes * 4)
    k.body(printer.body())
    traffic = (numel(x.shape) + numel(y.shape)) * 4 + product.bytes
    k.emit(
        grid=ceil_div(total, cut.block) * count, flops=total * (2 * depth * width), bytes=traffic
    )


def _near_depth(depth: int, columns: int) -> int:
    """How many steps of k stay near together, in equal pieces; 0: all."""
    most = NEAR_FLOATS // columns
    return 0 if depth <= most else -(-depth // -(-depth // most))


@dataclass(frozen=True, slots=True)
class _Ways:
    """Which numbers of rows occur in a block, by how they meet a panel."""

    at_once: tuple[int, ...]  # the whole panel, in one pass
    tiles: tuple[int, ...]  # heights of tiles that make numbers in registers, half a panel wide
    most_at_once: int
    most_in_tiles: int
    share: bool


def _ways(target: Target, cut: RowCut, most_tiles: int | None) -> _Ways:
    at_once = (target.registers - _SPARE) // VECTORS
    tile = (target.registers - _SPARE) // HALF
    in_tiles = cut.block if most_tiles is None else most_tiles * tile
    if isinstance(cut.total, int):
        sizes = {min(cut.block, cut.total), cut.total % cut.block} - {0} or {1}
    else:
        sizes = set(range(1, cut.block + 1))
    few = [rows for rows in sizes if at_once < rows <= in_tiles]
    return _Ways(
        tuple(sorted(rows for rows in sizes if rows <= at_once)),
        tuple(sorted({height for rows in few for height in split_rows(rows, tile)})),
        at_once,
        in_tiles,
        share=any(rows > in_tiles for rows in sizes),
    )


@dataclass(frozen=True, slots=True)
class _Printer:
    """Prints the loop over items: `loop` for the rows that share numbers, and the few rows."""

    panels: NumberPanels
    loop: RowLoop
    ways: _Ways

    def body(self) -> str:
        ways = [
            *(
                [(f"count <= {self.ways.most_at_once}", self._at_once())]
                if self.ways.at_once
                else ()
            ),
            *(
                [(f"count <= {self.ways.most_in_tiles}", self._in_tiles())]
                if self.ways.tiles
                else ()
            ),
            *([("", self._share())] if self.ways.share else ()),
        ]
        return "\n".join(
            [
                "const float *const a = x;",
                "float *const out = y;",
                "const int64_t at = 0;",
                "(void)at;",
                "for (int64_t item = begin; item < end; item++) {",
                "    const int64_t block = item / PANELS, panel = item % PANELS;",
                "    const int64_t last = tl_min((block + 1) * ROWS, M);",
                *_indent(self.panels.print_pointers()),
                *_indent(_choice("const int64_t count = last - block * ROWS;", ways)),
                "}",
            ]
        )

    def _share(self) -> list[str]:
        """Many rows, with numbers in private memory."""
        columns, sums = self.loop.columns, "ROWS" if self.loop.depth else "0"
        names = [text.replace("*", " ").split()[-1] for text in self.panels.parameters]
        args = f"{', '.join(names)}, k0, k0 + DEPTH, columns"
        fill = [
            f"float *const columns = (float *)scratch + {sums} * {columns};",
            f"(half ? tl_numbers_1 : tl_numbers_0)({args});",
        ]
        rows = replace(self.loop, fill="\n".join(fill)).print().splitlines()
        return [
            "for (int64_t half = 0; half < 2; half++) {",
            f"    const int64_t col = panel * {self.panels.columns} + half * {columns};",
            "    if (col >= N)",
            "        break;",
            *_indent(rows),
            "}",
        ]

    def halves(self) -> str:
        """C functions that write the numbers of half a panel for steps of k, row by row."""
        return "\n".join(self._half(half) for half in range(2))

    def _half(self, half: int) -> str:
        first = half * HALF
        stores = [f"v_store(to + {v} * V, w{first + v});" for v in range(HALF)]
        each = [*stores, f"to += {HALF} * V;"]
        lines = [
            f"static void tl_numbers_{half}(",
            f"    {', '.join(self.panels.parameters)},",
            "    int64_t k, int64_t stop, float *restrict to)",
            "{",
            *_indent(self.panels.print_steps(range(first, first + HALF), each)),
            "}",
        ]
        return "\n".join(lines)

    def _at_once(self) -> list[str]:
        """The rows of a block and the whole panel."""
        wide = replace(self.loop, tile=Tile(max(self.ways.at_once), VECTORS))
        lines = [
            f"const int64_t row = block * ROWS, col = panel * {self.panels.columns}, stop = K;",
            "int64_t k = 0;",
            "switch (last - row) {",
        ]
        for rows in self.ways.at_once:
            case = [*self._pass(rows, range(VECTORS)), *wide.store(rows).splitlines(), "break;"]
            lines += [f"case {rows}: {{", *_indent(case), "}"]
        return [*lines, "}"]

    def _in_tiles(self) -> list[str]:
        """A few tiles of rows, half a panel after the other."""
        tile = Tile(max(self.ways.tiles), HALF)
        lines: list[str] = []
        for first in range(0, VECTORS, HALF):
            store = replace(self.loop, tile=tile)
            cases = {
                rows: "\n".join([*self._pass(rows, range(first, first + HALF)), store.store(rows)])
                for rows in self.ways.tiles
            }
            before = ["const int64_t stop = K;", "int64_t k = 0;"]
            tiles = print_tiles(tile.rows, cases, before).splitlines()
            col = f"const int64_t col = panel * {self.panels.columns} + {first} * V;"
            lines += [
                "{",
                f"    {col}",
                "    if (col < N) {",
                *_indent(_indent(tiles)),
                "    }",
                "}",
            ]
        return lines

    def _pass(self, rows: int, vectors: range) -> list[str]:
        places = range(len(vectors))
        sums = [f"acc{r}_{v} = {{0}}" for r in range(rows) for v in places]
        each: list[str] = []
        for r in range(rows):
            each.append(f"const vf x{r} = v_set1(a{r}[k]);")
            each += [f"acc{r}_{v} += x{r} * w{vectors[v]};" for v in places]
        return [
            f"vf {', '.join(sums)};",
            *(f"const float *const a{r} = a + (row + {r}) * K;" for r in range(rows)),
            *self.panels.print_steps(vectors, each),
        ]


def _choice(first: str, ways: Sequence[tuple[str, list[str]]]) -> list[str]:
    """C that goes the first way whose condition holds; the last has no need of one."""
    if len(ways) == 1:
        return ways[0][1]
    lines = [first]
    for place, (condition, body) in enumerate(ways):
        head = (
            "} else {"
            if place == len(ways) - 1
            else f"{'} else ' * bool(place)}if ({condition}) {{"
        )
        lines += [head, *_indent(body)]
    return [*lines, "}"]


def _indent(lines: list[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").splitlines()

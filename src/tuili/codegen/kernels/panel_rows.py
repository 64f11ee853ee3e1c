"""Rows times panels of weights that become numbers on the way: codes of a few bits, half floats.

A few rows meet a panel in one pass: its codes become numbers in registers, and memory is read at
the speed of the codes. More rows share the numbers: those of a piece of k are written to private
memory that stays in the nearest cache, and the rows pass over them as in `matmul`. Either way
every sum is one chain over the same numbers, so results are the same to the last bit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm_rows import RowCut, RowLoop, cut_rows
from tuili.codegen.kernels.gemm_tile import Tile, usual_tile
from tuili.codegen.kernels.matmul import most_rows, read_bias
from tuili.codegen.targets import Target
from tuili.ir import Value
from tuili.tensors import ceil_div, numel

VECTORS = 4  # columns of a panel, in vectors
HALF = VECTORS // 2  # the columns that many rows meet together
NEAR_FLOATS = 4 * 1024  # numbers that stay in the first-level cache beside the rows
_SPARE = 6  # registers that a pass of few rows needs beside its sums


class NumberPanels(Protocol):
    """Panels of `VECTORS` vectors of columns, and C that makes numbers of what lies in them."""

    @property
    def columns(self) -> int:
        """Columns of a panel."""
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
    tile = usual_tile(ctx.target, known_stride=True, columns=width)
    assert tile.vectors == HALF
    cut = cut_rows(total, tile, most_rows(depth))
    bias = read_bias(k, product.bias, count * panels.columns)
    epilogue = Epilogue(k, k.node, product.own_slots)
    k.dims("M K N PANELS ROWS", (total, depth, width, count, cut.block))
    near = _near_depth(depth, HALF * ctx.target.lanes)
    lanes, ldb = ctx.target.lanes, str(HALF * ctx.target.lanes)
    loop = RowLoop(tile, lanes, cut.heights, width, bias, epilogue, ldb, depth=near)
    printer = _Printer(panels, loop, _few(ctx.target, cut))
    if printer.shares:
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
class _Few:
    """Numbers of rows in a block that meet a panel in one pass, and whether blocks have others."""

    most: int
    heights: tuple[int, ...]
    are_all: bool


def _few(target: Target, cut: RowCut) -> _Few:
    most = (target.registers - _SPARE) // VECTORS
    if not isinstance(cut.total, int):
        return _Few(most, tuple(range(1, most + 1)), are_all=False)
    blocks = {min(cut.block, cut.total), cut.total % cut.block} - {0}
    heights = tuple(sorted(rows for rows in blocks if rows <= most))
    return _Few(most, heights, are_all=len(heights) == len(blocks))


@dataclass(frozen=True, slots=True)
class _Printer:
    """Prints the loop over items: `loop` for the rows that share numbers, and the few rows."""

    panels: NumberPanels
    loop: RowLoop
    few: _Few

    @property
    def shares(self) -> bool:
        """Whether rows share numbers in private memory."""
        return not self.few.are_all

    def body(self) -> str:
        few, near = self._few_rows(), self._near_rows()
        if self.few.are_all:
            ways = few
        elif not self.few.heights:
            ways = near
        else:
            check = f"if (last - block * ROWS <= {self.few.most}) {{"
            ways = [check, *_indent(few), "} else {", *_indent(near), "}"]
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
                *_indent(ways),
                "}",
            ]
        )

    def _near_rows(self) -> list[str]:
        """Halves of the panel one after the other."""
        columns, sums = self.loop.columns, "ROWS" if self.loop.depth else "0"
        names = [text.replace("*", " ").split()[-1] for text in self.panels.parameters]
        args = f"{', '.join(names)}, k0, k0 + DEPTH, columns"
        fill = [
            f"float *const columns = (float *)scratch + {sums} * {columns};",
            f"(half ? tl_numbers_1 : tl_numbers_0)({args});",
        ]
        return [
            "for (int64_t half = 0; half < 2; half++) {",
            f"    const int64_t col = panel * {self.panels.columns} + half * {columns};",
            "    if (col >= N)",
            "        break;",
            *_indent(replace(self.loop, fill="\n".join(fill)).print().splitlines()),
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

    def _few_rows(self) -> list[str]:
        """The whole panel at once."""
        wide = replace(self.loop, tile=Tile(self.few.most, VECTORS))
        lines = [
            f"const int64_t row = block * ROWS, col = panel * {self.panels.columns}, stop = K;",
            "int64_t k = 0;",
            "switch (last - row) {",
        ]
        for rows in self.few.heights:
            store = wide.store(rows).splitlines()
            lines += [f"case {rows}: {{", *_indent([*self._pass(rows), *store, "break;"]), "}"]
        return [*lines, "}"]

    def _pass(self, rows: int) -> list[str]:
        sums = [f"acc{r}_{v} = {{0}}" for r in range(rows) for v in range(VECTORS)]
        each: list[str] = []
        for r in range(rows):
            each.append(f"const vf x{r} = v_set1(a{r}[k]);")
            each += [f"acc{r}_{v} += x{r} * w{v};" for v in range(VECTORS)]
        return [
            f"vf {', '.join(sums)};",
            *(f"const float *const a{r} = a + (row + {r}) * K;" for r in range(rows)),
            *self.panels.print_steps(range(VECTORS), each),
        ]


def _indent(lines: list[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").splitlines()

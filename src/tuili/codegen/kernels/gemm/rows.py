"""The rows of a GEMM: tiles of nearly equal height, a printed case per height, their store."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernels.gemm.tile import Source, Tile, print_tile, split_rows
from tuili.tensors import Dim

# A few lines at a time: a burst would fill the buffers that loads wait in.
_PREFETCH = (
    "for (const int64_t until = share * end_k / DEPTH; ahead < until; ahead += 16) "
    "__builtin_prefetch(next + ahead, 0, 2);"
)


@dataclass(frozen=True, slots=True)
class RowCut:
    """How M rows are cut: blocks for the grid, and the tile heights that occur inside a block."""

    total: Dim
    block: int
    heights: tuple[int, ...]


def cut_rows(total: Dim, tile: Tile, most: int) -> RowCut:
    """Nearly equal blocks for threads to share, a quarter above `most` before there is one more.

    Every height must be ready when the total is not known.
    """
    if not isinstance(total, int):
        return RowCut(total, most, tuple(range(1, tile.rows + 1)))
    block = -(-max(total, 1) // max(-(-total // (most + most // 4)), 1))
    blocks = [block] * (total // block) + ([total % block] if total % block else [])
    heights = {height for rows in blocks for height in split_rows(rows, tile.rows)}
    return RowCut(total, block, tuple(sorted(heights)))


def print_tiles(most: int, cases: Mapping[int, str], before: Sequence[str] = ()) -> str:
    """C for the rows from `block * ROWS` to `last`, in tiles of at most `most` rows.

    `cases` are by the height of the tile, from `row` on; `before` is printed in front of them.
    """
    lines = [
        "for (int64_t row = block * ROWS; row < last;) {",
        f"    const int64_t left = last - row, tiles = (left + {most - 1}) / {most};",
        "    const int64_t height = (left + tiles - 1) / tiles;",
        *(f"    {line}" for line in before),
        "    switch (height) {",
    ]
    for height, case in cases.items():
        inner = textwrap.indent(case, "        ")
        lines += [f"    case {height}: {{", inner, "        break;", "    }"]
    return "\n".join([*lines, "    }", "    row += height;", "}"])


@dataclass(frozen=True, slots=True)
class RowLoop:
    """What the printed loop needs to know; `ldb` is the C text of the distance of b's rows."""

    tile: Tile
    lanes: int
    heights: tuple[int, ...]
    width: int | None  # N when known
    bias: bool
    epilogue: Epilogue
    ldb: str
    prefetch: bool = False  # the next panel, while this one is worked on
    depth: int = 0  # steps of k whose columns of b stay near while the rows pass; 0: all
    fill: str = ""  # C that makes `columns` for the steps k0 to k0 + DEPTH; else `panel` has them

    @property
    def columns(self) -> int:
        """Columns of the register tile."""
        return self.tile.columns(self.lanes)

    def print(self) -> str:
        """C for the rows of one column panel; `a`, `panel`, `out`, `at`, `col` are in scope."""
        if not self.depth:
            return f"const int64_t k0 = 0, DEPTH = K;\n(void)k0;\n{self._rows()}"
        return "\n".join(
            [
                f"for (int64_t k0 = 0; k0 < K; k0 += {self.depth}) {{",
                f"    const int64_t DEPTH = tl_min({self.depth}, K - k0);",
                textwrap.indent(self._rows(), "    "),
                "}",
            ]
        )

    def _rows(self) -> str:
        sums = f"(float *)scratch + (row - block * ROWS) * {self.columns}"
        before = [
            "const float *const rows = a + row * K + k0;",
            *([f"float *const sums = {sums};"] if self.depth else ()),
            *(self._share() if self.prefetch else ()),
        ]
        columns = self.fill or f"const float *const columns = panel + k0 * {self.ldb};"
        cases = {rows: self._case(rows) for rows in self.heights}
        return f"{columns}\n{print_tiles(self.tile.rows, cases, before)}"

    def _share(self) -> list[str]:
        """Each tile asks for its share, `ahead` to `ahead + share`, of the panel that follows."""
        return [
            f"const int64_t first = block * ROWS, whole = DEPTH * {self.columns};",
            "const int64_t share = whole * height / (last - first);",
            "const int64_t asked = whole * (row - first) / (last - first);",
            "const float *const next = columns + whole + asked;",
            "int64_t ahead = 0;",
        ]

    def _case(self, rows: int) -> str:
        prefetch = _PREFETCH if self.prefetch else ""
        sums = "sums" if self.depth else ""
        source = Source("rows", "K", "columns", self.ldb, "DEPTH", prefetch, sums)
        tile = print_tile(rows, self.tile.vectors, source)
        store = self.store(rows)
        if self.depth:
            kept = "\n".join(self._keep(rows))
            store = f"if (k0 + DEPTH < K) {{\n{kept}\n}} else {{\n{store}\n}}"
        return "\n".join([*tile, store])

    def _keep(self, rows: int) -> list[str]:
        names = [f"acc{r}_{v}" for r in range(rows) for v in range(self.tile.vectors)]
        return [f"    v_store(sums + {i} * V, {name});" for i, name in enumerate(names)]

    def store(self, rows: int) -> str:
        """C that stores the sums `acc{r}_{v}` of so many rows from `row` on."""
        if self.width is not None and self.width % self.columns == 0:
            return self._store_vectors(rows)
        if self.width is not None and self.width < self.columns:
            return self._store_partial(rows)
        full = textwrap.indent(self._store_vectors(rows), "    ")
        partial = textwrap.indent(self._store_partial(rows), "    ")
        return f"if (col + {self.columns} <= N) {{\n{full}\n}} else {{\n{partial}\n}}"

    def _store_vectors(self, rows: int) -> str:
        lines: list[str] = []
        for r in range(rows):
            for v in range(self.tile.vectors):
                at, channel = f"(row + {r}) * N + col + {v} * V", f"col + {v} * V"
                acc = f"(acc{r}_{v} + v_load(bias + {channel}))" if self.bias else f"acc{r}_{v}"
                statements, result = self.epilogue.vector(acc, f"at + {at}", channel)
                store = f"v_store(out + {at}, {result});"
                lines += (
                    ["{", *(f"    {s}" for s in statements), f"    {store}", "}"]
                    if statements
                    else [store]
                )
        return "\n".join(lines)

    def _store_partial(self, rows: int) -> str:
        lines = [f"float sums[{rows}][{self.columns}];"]
        lines += [
            f"v_store(&sums[{r}][{v} * V], acc{r}_{v});"
            for r in range(rows)
            for v in range(self.tile.vectors)
        ]
        acc = "(sums[r][c] + bias[col + c])" if self.bias else "sums[r][c]"
        statements, result = self.epilogue.scalar(acc, "at + (row + r) * N + col + c", "col + c")
        inner = [*statements, f"out[(row + r) * N + col + c] = {result};"]
        return "\n".join(
            [
                *lines,
                f"for (int64_t r = 0; r < {rows}; r++)",
                "    for (int64_t c = 0; c < N - col; c++) {",
                *(f"        {line}" for line in inner),
                "    }",
            ]
        )

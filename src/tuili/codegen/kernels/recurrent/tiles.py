"""A step of one direction as a C function: block by block, and in a block tile by tile of rows.

The weights of a block are read from memory once for all rows; tiles have as many rows as their sums
fit the registers, and fewer at the end of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuili.codegen.kernels.recurrent.cells import Cell, Phase, tile_rows
from tuili.codegen.text import indent

GROUP = 4  # rows of the batch that a thread takes at least
MOST_ROWS = 32  # that it walks through time together

_STATE = (
    "const float *const *part, float *const *h, float *const *n, float *const *c, float *const *m"
)
_REST = "const float *bias, const float *peep, float *spare"


def tiles_used(tiles: Sequence[int], most: int, rest: int | None) -> list[int]:
    """Those of them that some thread needs: it has groups of the batch, and its rest or any."""
    used: set[int] = set()
    for rows in range(1, most + 1):
        if rows % GROUP not in (0, rest) and rest is not None:
            continue
        left = rows
        for tile in tiles:
            used |= {tile} if left >= tile else set()
            left %= tile
    return [tile for tile in tiles if tile in used]


def step_function(
    name: str,
    cell_of: Callable[[int], Cell],
    most: int,
    rest: int | None,
    sizes: str,
    phase: int | None = None,
) -> str:
    """C of `name(first, last, rows, part, h, n, c, m, w, w2, bias, peep, spare)` and what it calls.

    It makes the blocks of hidden units from `first` to before `last`.

    `sizes` are the names H and BLOCKS; `rest` is what the batch leaves of groups, None if unknown.
    `phase` is the one of a step's that it makes, None for all.
    """
    text: list[str] = []
    loops: list[str] = []
    for place, part in enumerate(cell_of(1).phases):
        if phase not in (None, place):
            continue
        weights = "w2" if place else "w"
        tiles = tiles_used(tile_rows(part.gates, cell_of(1).registers), most, rest)
        inner: list[str] = []
        for rows in tiles:
            function = f"{name}_{place}_{rows}"
            text.append(_of_tile(function, cell_of(rows).phases[place], sizes))
            states = ", ".join(f"{each} + r" for each in ("part", "h", "n", "c", "m"))
            inner += [
                f"for (; r + {rows} <= rows; r += {rows})",
                f"    {function}({states}, {weights}, bias, peep,",
                "        spare + 2 * r * BLOCKS * V, block * V);",
            ]
        loops += [
            f"{weights} += first * H * {part.gates} * V;",
            "for (int64_t block = first; block < last; block++) {",
            "    int64_t r = 0;",
            *indent(inner),
            f"    {weights} += H * {part.gates} * V;",
            "}",
        ]
    head = (
        f"static void {name}(int64_t first, int64_t last, int64_t rows,\n    {_STATE},\n"
        f"    const float *w, const float *w2, {_REST})"
    )
    lines = [head, "{", f"    enum {{ {sizes} }};", "    (void)w, (void)w2;", *indent(loops), "}"]
    return "\n".join([*text, *lines])


def _of_tile(function: str, phase: Phase, sizes: str) -> str:
    """C of one block of one tile; inlined, tiles would take the registers of each other's sums."""
    head = "static __attribute__((noinline)) void"
    head += f" {function}({_STATE},\n    const float *w, {_REST}, int64_t at)"
    unused = "    (void)c, (void)m, (void)h, (void)bias, (void)peep, (void)spare;"
    lines = [head, "{", f"    enum {{ {sizes} }};", unused, *indent(phase.lines), "}"]
    return "\n".join(lines)

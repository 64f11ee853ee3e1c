"""The GEMM micro-kernel: rows x vectors of accumulators, printed for one register tile.

    acc[r][v] += a[r][k] * b[k][v]      r < rows, v < vectors

`b` rows are `ldb` floats apart: packed weights have ldb = vectors * V. `a` is read one float at a
time and broadcast, straight from row-major memory (rows `lda` apart, no packing).
Tiles after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008):
rows * vectors accumulators, `vectors` registers for b and one for the broadcast must fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuili.codegen.targets import Target
from tuili.tensors import Dim

_MOST_VECTORS = 8
_GUESSED_ROWS = 168  # stand for a number that is not known
_L2_BYTES_A_CYCLE = 24
_LONE = 1.2  # one vector: every multiply-add has a load of its own
_ALIKE = 1.01  # the usual tile is taken where no other is cheaper than this
_RIVAL = 1.25  # tiles that may cost so much more by the model are worth measuring
PIECE = 16  # steps of k between two looks at what to prefetch
_FEW_SETS = 2048  # bytes from row to row: multiples of it fall on two sets of a first-level cache
_WAYS = 8  # of a set
_ROWS_A_SET = 6  # columns of b pass through the ways too
_SMALL = 16  # sums of a tile: in larger ones the instructions of the loop itself do not count


@dataclass(frozen=True, slots=True)
class Tile:
    """The register tile: at most `rows` rows of `vectors` vectors."""

    rows: int
    vectors: int

    def __str__(self) -> str:
        """As candidates are named."""
        return f"{self.rows}x{self.vectors}"

    def columns(self, lanes: int) -> int:
        """Columns of the tile."""
        return self.vectors * lanes


def usual_tile(target: Target, *, stride_bytes: Dim | None, columns: int | None) -> Tile:
    """The tile for many rows on a target, so far apart; None: not known.

    Rows at a known distance need one address register; unknown distances need one each, so there
    fewer rows and more columns do the same work per load. So they do for rows that would drive each
    other out of the few sets of the cache that they fall on.
    """
    known_stride = isinstance(stride_bytes, int)
    if target.registers >= 32:
        narrow = columns is not None and columns <= 2 * target.lanes
        if _collide(stride_bytes) and not narrow:
            return Tile(_ROWS_A_SET, 4)
        return Tile(14 if known_stride else 10, 2) if known_stride or narrow else Tile(6, 4)
    return Tile(6, 2)


def _collide(stride_bytes: Dim | None) -> bool:
    """Whether rows so far apart fall on the same few sets of the first-level cache."""
    return isinstance(stride_bytes, int) and stride_bytes > 0 and stride_bytes % _FEW_SETS == 0


def rank_tiles(
    target: Target, *, stride_bytes: Dim | None, columns: int | None, rows: Dim
) -> list[Tile]:
    """Up to three tiles for so many rows and columns, the likely best first.

    That is the usual one, unless another leaves fewer columns empty or, where rows are few, keeps
    the multipliers busier.
    """
    usual = usual_tile(target, stride_bytes=stride_bytes, columns=columns)
    known_stride = isinstance(stride_bytes, int)
    wide = 8 * target.lanes if columns is None else max(columns, 1)
    total = rows if isinstance(rows, int) else _GUESSED_ROWS
    few = _collide(stride_bytes) and total > _WAYS and usual.vectors > 2

    def cost(tile: Tile) -> float:
        panels = -(-wide // tile.columns(target.lanes))
        return panels * _cycles(tile, max(total, 1), target.lanes)

    others: list[Tile] = []
    for vectors in range(1, min(_MOST_VECTORS, -(-wide // target.lanes)) + 1):
        most = (target.registers - vectors - (1 if target.fma else 2)) // vectors
        height = min(most, usual.rows) if few or not known_stride else most
        if height > 0 and vectors != usual.vectors:
            others.append(Tile(height, vectors))
    others.sort(key=cost)
    least = min(cost(tile) for tile in (usual, *others))
    tiles = [tile for tile in others if cost(tile) <= _RIVAL * least]
    tiles.insert(0 if cost(usual) <= _ALIKE * least else 1, usual)
    return tiles[:3]


def _cycles(tile: Tile, rows: int, lanes: int) -> float:
    """Estimated cycles for one step of k of a panel: see `register_tile` for the numbers.

    Where there are several tiles, each reads the vectors of b anew, from the second-level cache.
    """
    heights = split_rows(rows, tile.rows)
    reading = tile.columns(lanes) * 4 / _L2_BYTES_A_CYCLE if len(heights) > 1 else 0
    each = tile.vectors / 2 * (_LONE if tile.vectors == 1 else 1)
    return sum(max(h * each, (h + tile.vectors) / 2, 4, reading) for h in heights)


def split_rows(total: int, most: int) -> list[int]:
    """`total` rows in as few tiles as possible, of nearly equal height."""
    count = -(-total // most)
    return [total // count + (i < total % count) for i in range(count)]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tile reads, as C text; `prefetch` is a statement for every PIECE steps of k.

    `sums`, when not empty: where the sums over earlier k lie, once `k0` is not 0.
    """

    a: str
    lda: str
    b: str
    ldb: str
    depth: str
    prefetch: str = ""
    sums: str = ""


def print_tile(rows: int, vectors: int, source: Source) -> list[str]:
    """C that leaves the sums in `acc{r}_{v}`.

    Every sum is one chain over k, in tiles of any height: a row's result does not depend on which
    rows are multiplied together with it, to the last bit.
    """
    names = [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]
    step = [f"    {line}" for line in _step(rows, vectors, source.b, source.ldb)]
    head = [
        f"vf {', '.join(f'{name} = {{0}}' for name in names)};",
        *_resume(names, source.sums),
        *(f"const float *const a{r} = {source.a} + {r} * {source.lda};" for r in range(rows)),
    ]
    unroll = ["#pragma GCC unroll 4"] if len(names) <= _SMALL else []
    if not source.prefetch:
        return [*head, *unroll, f"for (int64_t k = 0; k < {source.depth}; k++) {{", *step, "}"]
    return [
        *head,
        f"for (int64_t piece = 0; piece < {source.depth}; piece += {PIECE}) {{",
        f"    const int64_t end_k = tl_min(piece + {PIECE}, {source.depth});",
        f"    {source.prefetch}",
        *(f"    {line}" for line in unroll),
        "    for (int64_t k = piece; k < end_k; k++) {",
        *(f"    {line}" for line in step),
        "    }",
        "}",
    ]


def _resume(names: list[str], sums: str) -> list[str]:
    """Sums over earlier k come back as they were left: rounding is that of one chain."""
    if not sums:
        return []
    loads = [f"    {name} = v_load({sums} + {i} * V);" for i, name in enumerate(names)]
    return ["if (k0 > 0) {", *loads, "}"]


def _step(rows: int, vectors: int, b: str, ldb: str) -> list[str]:
    lines = [f"const vf b{v} = v_load({b} + k * {ldb} + {v} * V);" for v in range(vectors)]
    for r in range(rows):
        lines.append(f"const vf x{r} = v_set1(a{r}[k]);")
        lines += [f"acc{r}_{v} += x{r} * b{v};" for v in range(vectors)]
    return lines

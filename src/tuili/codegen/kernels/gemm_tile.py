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


@dataclass(frozen=True, slots=True)
class Tile:
    """The register tile: at most `rows` rows of `vectors` vectors."""

    rows: int
    vectors: int

    def columns(self, lanes: int) -> int:
        """Columns of the tile."""
        return self.vectors * lanes


def choose_tile(target: Target, *, known_stride: bool, columns: int | None) -> Tile:
    """The tile for a target.

    Rows at a known distance need one address register; unknown distances need one each, so there
    fewer rows and more columns do the same work per load.
    """
    if target.registers >= 32:
        narrow = columns is not None and columns <= 2 * target.lanes
        return Tile(14 if known_stride else 10, 2) if known_stride or narrow else Tile(6, 4)
    return Tile(6, 2)


def split_rows(total: int, most: int) -> list[int]:
    """`total` rows in as few tiles as possible, of nearly equal height."""
    count = -(-total // most)
    return [total // count + (i < total % count) for i in range(count)]


def print_tile(
    rows: int, vectors: int, *, a: str, lda: str, b: str, ldb: str, depth: str
) -> list[str]:
    """C that leaves the sums in `acc{r}_{v}`; short tiles keep several sums to hide FMA latency."""
    copies = max(1, min(4, 8 // (rows * vectors)))
    names = [f"acc{r}_{v}" for r in range(rows) for v in range(vectors)]
    lines = [f"vf {', '.join(f'{name} = {{0}}' for name in names)};"]
    if copies > 1:
        spare = [f"{name}_{c}" for name in names for c in range(1, copies)]
        lines.append(f"vf {', '.join(f'{name} = {{0}}' for name in spare)};")
    lines += _rows(rows, a, lda)
    lines.append("int64_t k = 0;")
    if copies > 1:
        lines.append(f"for (; k + {copies} <= {depth}; k += {copies}) {{")
        for copy in range(copies):
            lines += [f"    {line}" for line in _step(rows, vectors, b, ldb, copy)]
        lines.append("}")
    lines.append(f"for (; k < {depth}; k++) {{")
    lines += [f"    {line}" for line in _step(rows, vectors, b, ldb, 0)]
    lines.append("}")
    if copies > 1:
        lines += [
            f"{name} += {' + '.join(f'{name}_{c}' for c in range(1, copies))};" for name in names
        ]
    return lines


def _rows(rows: int, a: str, lda: str) -> list[str]:
    return [f"const float *const a{r} = {a} + {r} * {lda};" for r in range(rows)]


def _step(rows: int, vectors: int, b: str, ldb: str, copy: int) -> list[str]:
    suffix = f"_{copy}" if copy else ""
    at = f"k + {copy}" if copy else "k"
    scope = ["{"] + [
        f"    const vf b{v} = v_load({b} + ({at}) * {ldb} + {v} * V);" for v in range(vectors)
    ]
    for r in range(rows):
        scope.append(f"    const vf x{r} = v_set1(a{r}[{at}]);")
        scope += [f"    acc{r}_{v}{suffix} += x{r} * b{v};" for v in range(vectors)]
    return [*scope, "}"]

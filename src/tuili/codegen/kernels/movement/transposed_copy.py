"""Transposed copy: one side is contiguous along one axis, the other side along another.

Squares of elements are transposed in registers, those of 4 bytes straight from side to side. For
other sizes, and where the rows of the target lie so that the cache holds only few of them at a
time, a tile of squares is gathered in private memory first: then whole lines are written.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.movement.squares import UNSIGNED, side, square
from tuili.codegen.strides import Stride, declare_stride
from tuili.tensors import Dim, ceil_div, numel

BAND = 4  # squares per grid item along the axis where the source is contiguous
RUN = 64  # and along the other one
WIDE = 64  # elements of a row of a tile, as the target has them
LINE_BYTES = 64  # of a cache
# Rows this far apart share few sets of the first cache: fewer lines stay than a band has rows.
CROWDED_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Plane:
    """The axes of a copy, and the two along which the sides are contiguous."""

    dims: Sequence[Dim]
    source: Sequence[Stride]
    target: Sequence[Stride]

    @property
    def axis(self) -> int | None:
        """The axis along which the source is contiguous, when the innermost one is not it."""
        if self.source[-1] == 1:
            return None
        return next((axis for axis, step in enumerate(self.source) if step == 1), None)

    def is_at_least(self, size: int) -> bool:
        """Whether both its sides may have so many elements."""
        assert self.axis is not None
        sizes = (self.dims[self.axis], self.dims[-1])
        return all(not isinstance(each, int) or each >= size for each in sizes)

    def is_crowded(self, size: int) -> bool:
        """Whether rows of the target drive each other out of the cache."""
        assert self.axis is not None
        step = self.target[self.axis]
        return isinstance(step, int) and step * size % CROWDED_BYTES == 0


def emit_transposed(
    k: KernelBuilder, plane: Plane, axis: int, offsets: tuple[Dim, Dim], size: int
) -> Dim:
    """The loops over the squares of a plane; returns the grid."""
    target = k.ctx.target
    band, run, text = BAND * target.lanes, RUN * target.lanes, _ELEMENTS
    if plane.is_at_least(side(size, target)) and (size != 4 or plane.is_crowded(size)):
        band, run = min(128, 256 // size), WIDE
        text = _tiles(size, band, side(size, target))
        k.support(square(size, target))
        k.scratch(band * WIDE * size)
    elif size == 4:
        text = _SQUARES_4
    outer = [index for index in range(len(plane.dims) - 1) if index != axis]
    bands, runs = ceil_div(plane.dims[axis], band), ceil_div(plane.dims[-1], run)
    k.dims("ROWS COLUMNS BANDS RUNS", (plane.dims[axis], plane.dims[-1], bands, runs))
    for name, stride in (("Y_ROW", plane.target[axis]), ("X_COLUMN", plane.source[-1])):
        text = text.replace(name, declare_stride(k, name, stride))
    lines = [
        "int64_t rest = item / BANDS / RUNS;",
        *_outer_lines(k, plane, outer, offsets),
        f"const int64_t first = item % BANDS * {band}, last = tl_min(first + {band}, ROWS);",
        f"const int64_t start = item / BANDS % RUNS * {run};",
        f"const int64_t stop = tl_min(start + {run}, COLUMNS);",
        text.strip("\n"),
    ]
    body = textwrap.indent("\n".join(lines), "    ")
    k.body("for (int64_t item = begin; item < end; item++) {\n" + body + "\n}")
    return numel([plane.dims[index] for index in outer]) * bands * runs


def _outer_lines(
    k: KernelBuilder, plane: Plane, outer: Sequence[int], offsets: tuple[Dim, Dim]
) -> list[str]:
    lines: list[str] = []
    at: dict[str, list[str]] = {"y": [], "x0": []}
    for name, offset in zip(at, offsets, strict=True):
        if offset != 0:
            at[name].append(k.dim(f"{name.upper()}_START", offset))
    for place in reversed(range(len(outer))):
        axis = outer[place]
        if place:
            k.dim(f"D{place}", plane.dims[axis])
            lines += [f"const int64_t i{place} = rest % D{place};", f"rest /= D{place};"]
        else:
            lines.append("const int64_t i0 = rest;")
        for name, strides in (("y", plane.target), ("x0", plane.source)):
            step = declare_stride(k, f"{name.upper()}_S{place}", strides[axis])
            at[name].append(f"i{place} * {step}")
    ctype = UNSIGNED[k.node.output.dtype.itemsize]
    return [
        *lines,
        "(void)rest;",
        f"{ctype} *const yp = y + {' + '.join(at['y']) or '0'};",
        f"const {ctype} *const x0p = x0 + {' + '.join(at['x0']) or '0'};",
    ]


_SQUARES_4 = """
for (int64_t c = start; c < stop; c += V) {
    const int64_t wide = tl_min(V, stop - c);
    for (int64_t r = first; r < last; r += V) {
        const float *const from = (const float *)(x0p + c * X_COLUMN + r);
        float *const to = (float *)(yp + r * Y_ROW + c);
        const int64_t high = tl_min(V, last - r);
        if (wide == V && high == V)
            tl_transpose(from, X_COLUMN, to, Y_ROW);
        else
            tl_transpose_part(from, X_COLUMN, wide, high, to, Y_ROW, wide);
    }
}
"""

_ELEMENTS = """
for (int64_t c_start = start; c_start < stop; c_start += 16)
    for (int64_t r = first; r < last; r++)
        for (int64_t c = c_start; c < tl_min(c_start + 16, stop); c++)
            yp[r * Y_ROW + c] = x0p[c * X_COLUMN + r];
"""


def _tiles(size: int, band: int, n: int) -> str:
    """One tile; rows of the source are far apart, so what comes next is asked for early."""
    ctype = UNSIGNED[size]
    return f"""
{ctype} *const tile = ({ctype} *)scratch;
for (int64_t c = start; c < stop; c += {n}) {{
    const {ctype} *const from = x0p + c * X_COLUMN;
    {ctype} *const to = tile + c - start;
    const int64_t wide = tl_min({n}, stop - c);
    for (int64_t i = 0; i < {n}; i++)
        for (int64_t r = first; r < last; r += {LINE_BYTES // size})
            __builtin_prefetch(from + ({n} + i) * X_COLUMN + r);
    int64_t r = first;
    if (wide == {n})
        for (; r + {n} <= last; r += {n})
            tl_square_{8 * size}(from + r, X_COLUMN, to + (r - first) * {WIDE}, {WIDE});
    for (; r < last; r++)
        for (int64_t i = 0; i < wide; i++)
            to[(r - first) * {WIDE} + i] = from[i * X_COLUMN + r];
}}
for (int64_t r = first; r < last; r++) {{
    {ctype} *const to = yp + r * Y_ROW + start;
    const {ctype} *const row = tile + (r - first) * {WIDE};
    if (stop - start == {WIDE})
        memcpy(to, row, {WIDE * size});
    else
        memcpy(to, row, (size_t)(stop - start) * {size});
}}
"""

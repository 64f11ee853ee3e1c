"""Interpolation along lines whose elements lie side by side: where places repeat, whole vectors.

Enlarged by a whole number S, the places between two elements are the same all along the line: S
sums of vectors, woven into each other. The ends of the line, and other sizes, follow the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.sampling.resize_tables import Table
from tuili.ops.resize import resize_axis
from tuili.ops.table import attr, attributes
from tuili.tensors import Array

_WOVEN = (2, 4, 8)
# In these modes a place depends on the scale only, but for a result of one element.
_SIZE_FREE = ("asymmetric", "half_pixel", "pytorch_half_pixel")


@dataclass(frozen=True, slots=True)
class Phases:
    """For each of the S places behind an element: offsets from it, and weights."""

    offsets: Array  # [S, taps]
    weights: Array

    @property
    def before(self) -> int:
        """How many elements before one its places read."""
        return max(0, -int(self.offsets.min()))

    @property
    def behind(self) -> int:
        """How many elements behind one its places read."""
        return max(0, int(self.offsets.max()))


def phases(table: Table, k: KernelBuilder) -> Phases | None:
    """What repeats along the axis; None where nothing does."""
    axis, attrs = table.axis, attributes(k.node)
    scale = axis.scale
    if scale is None and isinstance(axis.size, int) and isinstance(axis.result, int):
        scale = axis.result / axis.size if axis.size else None
    if scale not in _WOVEN or axis.result != axis.size * int(scale):
        return None
    if attrs["coordinate_transformation_mode"] not in _SIZE_FREE:
        return None
    times, found = int(scale), []
    for size, place in ((64, 31), (64, 32), (40, 20)):
        indices, weights = resize_axis(size, size * times, scale, axis.crop, attrs)
        part = slice(place * times, (place + 1) * times)
        found.append(Phases(indices[part] - place, weights[part]))
    first, *others = found
    same = all(
        np.array_equal(first.offsets, other.offsets) and np.allclose(first.weights, other.weights)
        for other in others
    )
    return first if same else None


def line_body(k: KernelBuilder, table: Table) -> str:
    """C of lines of floats, one an item; names as in the passes of `resize`."""
    repeated = phases(table, k)
    place = _place(k, table)
    vectors: list[str] = []
    if repeated is not None:
        count = f"{repeated.before} * {len(repeated.offsets)}"
        vectors = [
            f"for (; r < tl_min({count}, RESULT); r++)",
            f"    {place}",
            *_vectors(repeated, k.ctx.target.lanes),
        ]
    return "\n".join(
        [
            "for (int64_t item = begin; item < end; item++) {",
            "    const float *const from = x + item * SIZE;",
            "    float *const to = y + item * RESULT;",
            "    int64_t r = 0;",
            *(f"    {line}" for line in vectors),
            "    for (; r < RESULT; r++)",
            f"        {place}",
            "}",
        ]
    )


def _place(k: KernelBuilder, table: Table) -> str:
    """One element by the tables."""
    taps = table.taps
    terms = [
        f"from[indices[r * {taps} + {tap}]] * weights[r * {taps} + {tap}]" for tap in range(taps)
    ]
    total = " + ".join(terms)
    if attr(k.node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        fill = float(attr(k.node, "extrapolation_value"))
        total = f"indices[r * {taps}] < 0 ? (float){fill!r} : {total}"
    return f"to[r] = {total};"


def _vectors(repeated: Phases, lanes: int) -> list[str]:
    """V elements and what lies behind each of them, as often as the line has them."""
    offsets = sorted({int(offset) for offset in repeated.offsets.flat})
    names = {offset: f"x{index}" for index, offset in enumerate(offsets)}
    sums = [
        " + ".join(
            f"{names[int(offset)]} * {float(weight)!r}f"
            for offset, weight in zip(row, factors, strict=True)
        )
        for row, factors in zip(repeated.offsets, repeated.weights.astype(np.float32), strict=True)
    ]
    times = len(sums)
    woven = _woven([f"p{phase}" for phase in range(times)], lanes)
    start, end = repeated.before, f"i + V + {repeated.behind} <= SIZE"
    return [
        f"for (int64_t i = {start}; {end}; i += V, r += {times} * V) {{",
        *(f"    const vf {names[at]} = v_load(from + i + {at});" for at in offsets),
        *(f"    const vf p{phase} = {total};" for phase, total in enumerate(sums)),
        *(f"    v_store(to + r + {at} * V, {vector});" for at, vector in enumerate(woven)),
        "}",
    ]


def _woven(vectors: Sequence[str], lanes: int) -> list[str]:
    """Vectors of the first lanes of all, then of the second lanes of all, and so on."""
    if len(vectors) == 1:
        return list(vectors)
    even, odd = _woven(vectors[0::2], lanes), _woven(vectors[1::2], lanes)
    result: list[str] = []
    for a, b in zip(even, odd, strict=True):
        for first in (0, lanes // 2):
            order = [at for lane in range(first, first + lanes // 2) for at in (lane, lanes + lane)]
            result.append(f"__builtin_shufflevector({a}, {b}, {', '.join(map(str, order))})")
    return result

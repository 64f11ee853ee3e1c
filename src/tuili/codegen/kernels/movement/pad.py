"""Pad: a border of a value, of the edge, mirrored or wrapped; negative pads crop.

A grid item is one row of the result. Per axis the result's index i stands for the source index
start + map(i - pad, n), where [start, start + n) is what crops leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.codegen.kernels.movement.strided import is_movable
from tuili.codegen.kernels.movement.strided_copy import UNSIGNED
from tuili.codegen.strides import contiguous
from tuili.errors import Unsupported
from tuili.ir import Node
from tuili.ops.bounds import at_least
from tuili.ops.table import attr
from tuili.tensors import Dim, numel

_MAPS = {
    "reflect": "tl_reflect({i}, {n})",
    "edge": "tl_min(tl_max({i}, 0), {n} - 1)",
    "wrap": "tl_floormod({i}, {n})",
}

_REFLECT = """
/* The index that a mirror at both ends leads to: 2 1 [0 1 2 3] 2 1. */
static inline int64_t tl_reflect(int64_t i, int64_t n)
{
    const int64_t period = n > 1 ? 2 * n - 2 : 1, at = tl_floormod(i, period);
    return at < n ? at : period - at;
}
"""


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: sizes of source and result, pads at both ends."""

    size: Dim
    begin: Dim
    end: Dim

    @property
    def result(self) -> Dim:
        return self.size + self.begin + self.end

    @property
    def start(self) -> Dim:
        """The first source index that crops leave."""
        return at_least(0 - self.begin, 0)

    @property
    def count(self) -> Dim:
        return self.size - self.start - at_least(0 - self.end, 0)

    @property
    def border(self) -> Dim:
        return at_least(self.begin, 0)

    @property
    def is_whole(self) -> bool:
        return self.begin == 0 and self.end == 0


def _axes(node: Node, ctx: Context) -> list[_Axis] | None:
    """The axes in memory; None when the pads are not known."""
    x = node.required(0)
    rank = len(x.shape)
    pads, axes = ctx.contents.dims(node.required(1)), ctx.contents.dims(node.input(3))
    if pads is None or (axes is None and node.input(3) is not None):
        return None
    chosen = range(rank) if axes is None else [int(axis) % rank for axis in axes]  # pyright: ignore[reportArgumentType]
    widths: list[tuple[Dim, Dim]] = [(0, 0)] * rank
    for index, axis in enumerate(chosen):
        widths[axis] = (pads[index], pads[index + len(pads) // 2])
    shape = physical_shape(x.tensor)
    widths += [(0, 0)] * (len(shape) - rank)
    return [_Axis(size, *width) for size, width in zip(shape, widths, strict=True)]


def supports(node: Node, ctx: Context) -> bool:
    """Known pads; in a blocked layout channels are left alone."""
    x = node.required(0)
    if not is_movable(x) or x.layout != node.output.layout or x.dtype.itemsize not in UNSIGNED:
        return False
    axes = _axes(node, ctx)
    return axes is not None and (not x.layout or axes[1].is_whole)


def _merge(axes: Sequence[_Axis], *, constant: bool) -> list[_Axis]:
    """Fewer axes: whole ones merge, and a constant border swallows whole axes inside it."""
    merged: list[_Axis] = []
    for axis in axes:
        last = merged[-1] if merged else None
        if last is not None and axis.is_whole and (last.is_whole or constant):
            step = axis.size
            merged[-1] = _Axis(last.size * step, last.begin * step, last.end * step)
        else:
            merged.append(axis)
    return merged or [_Axis(1, 0, 0)]


def emit(node: Node, ctx: Context) -> None:
    """Print the rows."""
    x, y = node.required(0), node.output
    axes = _axes(node, ctx)
    assert axes is not None  # supports
    if 0 in y.shape:
        return
    mode = str(attr(node, "mode"))
    constant = mode == "constant"
    if not constant and mode not in _MAPS:
        raise Unsupported(f"{node.label}: mode {mode!r} is unknown; known: {', '.join(_MAPS)}")
    merged = _merge(axes, constant=constant)
    k = KernelBuilder(ctx, node, f"pad_{mode}_{8 * x.dtype.itemsize}")
    word = UNSIGNED[x.dtype.itemsize]
    k.read("x", x, word)
    value = node.input(2)
    if constant and value is not None:
        k.read("value", value, word)
    k.write("y", y, word)
    if mode == "reflect":
        k.support(_REFLECT)
    strides = contiguous([axis.size for axis in merged])
    last = len(merged) - 1
    for index, axis in enumerate(merged):
        k.dims(
            f"O{index} N{index} P{index} W{index}",
            (axis.result, axis.count, axis.border, axis.start),
        )
        if index < last:
            k.dim(f"S{index}", strides[index])
    fill = "value[0]" if constant and value is not None else "0"
    lines = [f"const {word} fill = {fill};"] if constant else []
    lines += _row(last, word, mode)
    k.body("\n".join(lines))
    rows = numel([axis.result for axis in merged[:-1]])
    k.emit(grid=rows, bytes=size_of(x.tensor) + size_of(y.tensor))


def _row(last: int, word: str, mode: str) -> list[str]:
    constant = mode == "constant"
    lines = ["int64_t rest = item, at = 0;"]
    if constant:
        lines.append("int inside = 1;")
    for axis in reversed(range(last)):
        index = f"rest % O{axis} - P{axis}"
        lines.append(f"const int64_t r{axis} = {index};")
        lines.append(f"rest /= O{axis};")
        if constant:
            lines.append(f"inside &= r{axis} >= 0 && r{axis} < N{axis};")
            source = f"r{axis}"
        else:
            source = _MAPS[mode].format(i=f"r{axis}", n=f"N{axis}")
        lines.append(f"at += (W{axis} + {source}) * S{axis};")
    n = last
    lines += [
        "(void)rest;",
        f"{word} *const to = y + item * O{n};",
        f"const {word} *const from = x + at + W{n};",
    ]
    if constant:
        lines += [
            "int64_t i = 0;",
            f"if (inside && N{n} > 0) {{",
            f"    for (; i < P{n}; i++)",
            "        to[i] = fill;",
            f"    memcpy(to + i, from, (size_t)N{n} * sizeof *to);",
            f"    i += N{n};",
            "}",
            f"for (; i < O{n}; i++)",
            "    to[i] = fill;",
        ]
    else:
        mapped = _MAPS[mode].format(i=f"i - P{n}", n=f"N{n}")
        lines += [
            "int64_t i = 0;",
            f"for (; i < P{n}; i++)",
            f"    to[i] = from[{mapped}];",
            f"memcpy(to + i, from, (size_t)N{n} * sizeof *to);",
            f"for (i += N{n}; i < O{n}; i++)",
            f"    to[i] = from[{mapped}];",
        ]
    return [
        "for (int64_t item = begin; item < end; item++) {",
        *(f"    {line}" for line in lines),
        "}",
    ]

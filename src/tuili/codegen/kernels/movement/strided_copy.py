"""Strided copy: what most movement operators are; runs by memcpy, transposes in squares of V.

A copy walks the same axes on both sides with strides of their own. Where one side is contiguous
along one axis and the other side along another, squares are transposed in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.walk import Walk
from tuili.codegen.strides import Stride, collapse, declare_stride
from tuili.ir import Node, Value
from tuili.tensors import Dim, ceil_div, numel

UNSIGNED = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


@dataclass(frozen=True, slots=True)
class Copy:
    """Axes with their strides in the source and in the target, in elements."""

    dims: Sequence[Dim]
    source: Sequence[Stride]
    target: Sequence[Stride]
    source_offset: Dim = 0
    target_offset: Dim = 0


def emit_copy(name: str, node: Node, ctx: Context, x: Value, y: Value, copy: Copy) -> None:
    """Append the kernel that copies elements of `x` to `y`."""
    if 0 in copy.dims:
        return
    size = y.dtype.itemsize
    if size == 16:  # two words per element
        _emit_pairs(name, node, ctx, x, y, copy)
        return
    dims, (target, source) = collapse(copy.dims, [copy.target, copy.source])
    k = KernelBuilder(ctx, node, f"{name}_{8 * size}")
    k.read("x0", x, UNSIGNED[size])
    k.write("y", y, UNSIGNED[size])
    offsets = (copy.target_offset, copy.source_offset)
    plan = _Plan(dims, source, target)
    axis = plan.transposed_axis
    if axis is not None and target[-1] == 1 and plan.is_large(axis, ctx.target.lanes):
        grid = _transpose(k, plan, axis, offsets, size)
    else:
        order = list(range(len(dims)))
        if axis is not None and isinstance(dims[-1], int) and dims[-1] < 8:
            order = [*(i for i in order if i != axis), axis]
        rows = [[side[i] for i in order] for side in (target, source)]
        grid = _runs(k, [dims[i] for i in order], rows, offsets, size)
    k.emit(grid=grid, bytes=numel(copy.dims) * (2 * size))


def _emit_pairs(name: str, node: Node, ctx: Context, x: Value, y: Value, copy: Copy) -> None:
    def doubled(strides: Sequence[Stride]) -> list[Stride]:
        assert all(not hasattr(stride, "dim") for stride in strides)
        return [*(stride * 2 for stride in strides), 1]  # pyright: ignore[reportOperatorIssue]

    dims, (target, source) = collapse([*copy.dims, 2], [doubled(copy.target), doubled(copy.source)])
    k = KernelBuilder(ctx, node, f"{name}_128")
    k.read("x0", x, UNSIGNED[8])
    k.write("y", y, UNSIGNED[8])
    offsets = (copy.target_offset * 2, copy.source_offset * 2)
    grid = _runs(k, dims, [target, source], offsets, 8)
    k.emit(grid=grid, bytes=numel(copy.dims) * 32)


@dataclass(frozen=True, slots=True)
class _Plan:
    dims: Sequence[Dim]
    source: Sequence[Stride]
    target: Sequence[Stride]

    @property
    def transposed_axis(self) -> int | None:
        """The axis along which the source is contiguous, when the innermost one is not it."""
        if self.source[-1] == 1:
            return None
        return next((axis for axis, step in enumerate(self.source) if step == 1), None)

    def is_large(self, axis: int, lanes: int) -> bool:
        """Whether squares pay in the plane of an axis and the innermost one."""
        sizes = (self.dims[axis], self.dims[-1])
        return all(not isinstance(size, int) or 2 * size >= lanes for size in sizes)


def _runs(
    k: KernelBuilder,
    dims: Sequence[Dim],
    strides: Sequence[Sequence[Stride]],
    offsets: tuple[Dim, Dim],
    size: int,
) -> Dim:
    walk = Walk(k, dims, strides, [UNSIGNED[size]] * 2, offsets)
    grid = walk.declare()
    if walk.inner == [1, 1]:
        inner = f"memcpy(yp + first, x0p + first, (size_t)(last - first) * {size});"
    else:
        places = walk.places("j")
        inner = f"for (int64_t j = first; j < last; j++)\n    {places[0]} = {places[1]};"
    k.body(walk.loops(inner))
    return grid


# -- transposition in squares -------------------------------------------------------------------

BAND = 4  # squares per grid item along the axis where the source is contiguous
RUN = 64  # and along the other one


def _transpose(
    k: KernelBuilder, plan: _Plan, axis: int, offsets: tuple[Dim, Dim], size: int
) -> Dim:
    outer = [index for index in range(len(plan.dims) - 1) if index != axis]
    lanes = k.ctx.target.lanes
    bands = ceil_div(plan.dims[axis], BAND * lanes)
    runs = ceil_div(plan.dims[-1], RUN * lanes)
    k.dims("ROWS COLUMNS BANDS RUNS", (plan.dims[axis], plan.dims[-1], bands, runs))
    strides = {
        "Y_ROW": declare_stride(k, "Y_ROW", plan.target[axis]),
        "X_COLUMN": declare_stride(k, "X_COLUMN", plan.source[-1]),
    }
    text = (_SQUARES_4 if size == 4 else _SQUARES).strip("\n")
    for name, stride in strides.items():
        text = text.replace(name, stride)
    lines = [
        "int64_t rest = item / BANDS / RUNS;",
        *_outer_lines(k, plan, outer, offsets),
        f"const int64_t first = item % BANDS * {BAND} * V;",
        f"const int64_t last = tl_min(first + {BAND} * V, ROWS);",
        f"const int64_t start = item / BANDS % RUNS * {RUN} * V;",
        f"const int64_t stop = tl_min(start + {RUN} * V, COLUMNS);",
        *text.split("\n"),
    ]
    k.body(
        "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                *(f"    {line}" for line in lines),
                "}",
            ]
        )
    )
    return numel([plan.dims[index] for index in outer]) * bands * runs


def _outer_lines(
    k: KernelBuilder, plan: _Plan, outer: Sequence[int], offsets: tuple[Dim, Dim]
) -> list[str]:
    lines: list[str] = []
    at: dict[str, list[str]] = {"y": [], "x0": []}
    for name, offset in zip(at, offsets, strict=True):
        if offset != 0:
            at[name].append(k.dim(f"{name.upper()}_START", offset))
    for place in reversed(range(len(outer))):
        axis = outer[place]
        if place:
            k.dim(f"D{place}", plan.dims[axis])
            lines += [f"const int64_t i{place} = rest % D{place};", f"rest /= D{place};"]
        else:
            lines.append("const int64_t i0 = rest;")
        for name, strides in (("y", plan.target), ("x0", plan.source)):
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

_SQUARES = """
for (int64_t c_start = start; c_start < stop; c_start += 16)
    for (int64_t r = first; r < last; r++)
        for (int64_t c = c_start; c < tl_min(c_start + 16, stop); c++)
            yp[r * Y_ROW + c] = x0p[c * X_COLUMN + r];
"""

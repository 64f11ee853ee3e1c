"""ConvShape: a 1-D or 2-D window operation as numbers, rank and auto_pad resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from tuili.ir import Node
from tuili.lower.choice import dims_text
from tuili.ops.contents import origins
from tuili.ops.table import attr
from tuili.tensors import Dim, ceil_div, dim_max, symbols_of

LIKELY_FOUND = 64  # images of a batch that data decide: the regions that a detector looks at
MOST_TAPS = 12  # in a row, to print tiles with just the taps that they have


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis: sizes, taps and how windows step; `end` is the padding after the input."""

    size: Dim
    out: Dim
    taps: int  # row-major fallbacks, which print no taps, may hold an unknown number here
    stride: int = 1
    dilation: int = 1
    pad: Dim = 0
    end: Dim = 0
    over: int = 0  # how far the last window may stick out beyond it (ceil_mode)

    @property
    def reach(self) -> int:
        """How far one window stretches."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def is_plain(self) -> bool:
        """Whether output i is made of input i alone."""
        return (self.taps, self.stride, self.pad, self.end) == (1, 1, 0, 0)

    @property
    def is_inside(self) -> bool:
        """Whether no window reaches into padding."""
        if not isinstance(self.pad, int) or self.pad > 0:
            return False
        if isinstance(self.size, int) and isinstance(self.out, int):
            return (self.out - 1) * self.stride + self.reach - self.pad <= self.size
        return self.end == 0 and self.over == 0

    def inside(self, first: int, count: int) -> list[tuple[int, int]]:
        """For each tap, which of the outputs first .. first + count - 1 read real input."""
        assert isinstance(self.size, int)
        assert isinstance(self.pad, int)
        ranges: list[tuple[int, int]] = []
        for tap in range(self.taps):
            start = first * self.stride - self.pad + tap * self.dilation
            low = max(0, -(start // self.stride)) if start < 0 else 0
            high = min(count, -((start - self.size) // self.stride)) if start < self.size else 0
            ranges.append((min(low, count), max(high, min(low, count))))
        return ranges


@dataclass(frozen=True, slots=True)
class ConvShape:
    """[batch, channels, rows, columns] by a window; 1-D inputs have one row.

    `likely_batch` is the batch if it is known, else what plans count on.
    """

    batch: Dim
    channels: int
    outputs: int
    rows: Axis
    columns: Axis
    likely_batch: int = 1

    def flat(self) -> ConvShape:
        """A 1x1 window over all pixels is a row of rows * columns of them."""
        if not (self.rows.is_plain and self.columns.is_plain):
            return self
        pixels = self.rows.size * self.columns.size
        return replace(self, rows=Axis(1, 1, 1), columns=Axis(pixels, pixels, 1))

    @property
    def taps(self) -> int:
        """The size of the window."""
        return self.rows.taps * self.columns.taps

    @property
    def pixels(self) -> Dim:
        """Output pixels of one image."""
        return self.rows.out * self.columns.out

    @property
    def is_static(self) -> bool:
        """Whether every tile of a row can be printed with the taps that it has."""
        axis = self.columns
        known = all(isinstance(dim, int) for dim in (axis.size, axis.out, axis.pad))
        return known and (axis.taps <= MOST_TAPS or axis.is_inside)


def conv_shape(node: Node, taps: Sequence[int]) -> ConvShape:
    """The shape of a Conv or pool node of rank 3 or 4 whose window has these taps."""
    x, y = node.required(0).shape, node.output.shape
    axes = window_axes(node, taps)
    rows, columns = axes[0] if len(axes) == 2 else Axis(1, 1, 1), axes[-1]
    if columns.is_plain and columns.size == 1:
        # A single column is a row in memory, and kernels go along rows.
        rows, columns = columns, rows
    channels, outputs = x[1], y[1]
    assert isinstance(channels, int)
    assert isinstance(outputs, int)
    return ConvShape(x[0], channels, outputs, rows, columns, likely_batch(node, x[0]))


def likely_batch(node: Node, batch: Dim) -> int:
    """The batch if it is known, one picture if callers say, many if data do."""
    if isinstance(batch, int):
        return batch
    found = origins(node.graph.metadata if node.graph is not None else {})
    return LIKELY_FOUND if symbols_of(batch) & found.keys() else 1


def window_axes(node: Node, window: Sequence[Dim]) -> list[Axis]:
    """The spatial axes of a window operation."""
    taps = cast("Sequence[int]", window)
    x, y = node.required(0).shape[2:], node.output.shape[2:]
    rank = len(x)
    strides = attr(node, "strides") or (1,) * rank
    dilations = attr(node, "dilations") or (1,) * rank
    axes: list[Axis] = []
    for axis in range(rank):
        reach = (taps[axis] - 1) * dilations[axis] + 1
        pad, end = _pads(node, axis, rank, x[axis], reach, strides[axis])
        over = strides[axis] - 1 if node.attrs.get("ceil_mode") else 0
        sizes = (x[axis], y[axis], taps[axis], strides[axis], dilations[axis])
        axes.append(Axis(*sizes, pad, end, over))
    return axes


def _pads(node: Node, axis: int, rank: int, size: Dim, reach: int, stride: int) -> tuple[Dim, Dim]:
    auto = attr(node, "auto_pad")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = dim_max((ceil_div(size, stride) - 1) * stride + reach - size, 0)
        small = total // 2
        return (small, total - small) if auto == "SAME_UPPER" else (total - small, small)
    if auto == "VALID":
        return 0, 0
    pads = attr(node, "pads") or (0,) * (2 * rank)
    return pads[axis], pads[axis + rank]


def transposed_axes(node: Node, window: Sequence[Dim]) -> list[Axis]:
    """The spatial axes of a ConvTranspose node; `pad` is what is cut off at the beginning."""
    taps = cast("Sequence[int]", window)
    x, y = node.required(0).shape[2:], node.output.shape[2:]
    rank = len(x)
    strides = attr(node, "strides") or (1,) * rank
    dilations = attr(node, "dilations") or (1,) * rank
    extra = attr(node, "output_padding") or (0,) * rank
    auto, pads = attr(node, "auto_pad"), attr(node, "pads") or (0,) * (2 * rank)
    axes: list[Axis] = []
    for axis in range(rank):
        full = strides[axis] * (x[axis] - 1) + (taps[axis] - 1) * dilations[axis] + 1 + extra[axis]
        begin: Dim = pads[axis] if auto == "NOTSET" else 0
        if attr(node, "output_shape") or auto in ("SAME_UPPER", "SAME_LOWER"):
            total = dim_max(full - y[axis], 0)
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        axes.append(Axis(x[axis], y[axis], taps[axis], strides[axis], dilations[axis], begin))
    return axes


def conv_problem(op: str, shape: ConvShape, groups: int, block: int) -> str:
    """A convolution as one line; `block` is that of the input's layout."""
    rows, columns = shape.rows, shape.columns
    size = dims_text(shape.batch, shape.channels, rows.size, columns.size)
    pads = ",".join(dims_text(dim) for dim in (rows.pad, columns.pad, rows.end, columns.end))
    words = [
        f"{op} {size} to {shape.outputs} by {rows.taps}x{columns.taps}",
        f"stride {rows.stride},{columns.stride}",
        f"dilation {rows.dilation},{columns.dilation}",
        f"pads {pads}",
        *([f"groups {groups}"] if groups > 1 else []),
        *(["plain"] if block == 1 else []),
    ]
    return ", ".join(words)

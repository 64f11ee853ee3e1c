"""The input of a convolution of cells as its kernel reads it: padded and stored as it multiplies.

    x [N][CB][H][W][cell]  ->  [N][CB][HP][WP][cell], padding holding what stands for zero

Codes that are stored as they are, without padding, are read in place and cost nothing. Few channels
in row-major order become cells of four. Cells of several blocks hold zeros where there is no block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.shape import Axis, ConvShape
from tuili.codegen.kernels.quantized.copies import Stored, copy_text, is_cut
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.sums import known_zero
from tuili.ir import Node, Value, block_of
from tuili.lower.program import View
from tuili.tensors import Dim, DType


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the kernel reads codes: a value or a view, and the shape of what is there."""

    source: Value | View
    blocks: int
    height: Dim
    width: Dim
    cell: int
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The taps of a row as one run of numbers, where cells lie side by side without gaps.

    It is read in `count` parts of `quads` groups. Behind its last tap weights are zero.
    """

    count: int
    quads: int

    def slack(self, shape: ConvShape, group: int) -> int:
        """Pixels that the last window reads behind its last tap."""
        length = self.count * self.quads * group
        return -(-(length - shape.columns.taps * shape.channels) // shape.channels)


def cell_of(x: Value, group: int) -> int:
    """Channels that lie side by side: a block, or as many as one group takes."""
    block = block_of(x.layout)
    channels = x.shape[1]
    assert isinstance(channels, int)
    return block if block > 1 else -(-channels // group) * group


def stored_codes(node: Node, dot: Dot, zero: str = "0") -> Stored:
    """The codes of a node's first input, shifted; padding holds `zero`, a C text."""
    dtype = {"int16_t": DType.I16, "uint8_t": DType.U8, "int8_t": DType.I8}[dot.ctype]
    shift = dot.shifts[node.required(0).dtype]
    is_byte = dtype.itemsize == 1
    return Stored(
        dtype,
        f"({dot.ctype})({{x}} + {shift})",
        f"{zero} + {shift}",
        shift=shift if is_byte else None,
    )


def _with_zero(k: KernelBuilder, node: Node, dot: Dot) -> Stored:
    """Padding holds the zero point, which may be found as the model runs."""
    zero = known_zero(node)
    if zero is None:
        k.read("zero", node.required(2))
    return stored_codes(node, dot, "zero[0]" if zero is None else str(zero))


def read_input(
    node: Node, ctx: Context, shape: ConvShape, dot: Dot, run: Run | None = None
) -> Cells:
    """The input of a QConv node; adds the call that copies it where that is needed."""
    x = node.required(0)
    if run is not None:
        slack = run.slack(shape, dot.group)
        return replace(copy_codes(node, ctx, shape, dot, shape.channels, slack), run=run)
    in_place = x.layout and dot.reads(x.dtype) and shape.rows.is_inside and shape.columns.is_inside
    if in_place:
        cell = cell_of(x, dot.group)
        blocks = -(-shape.channels // cell)
        return Cells(x, blocks, shape.rows.size, shape.columns.size, cell)
    return copy_codes(node, ctx, shape, dot, cell_of(x, dot.group))


def copy_codes(
    node: Node, ctx: Context, shape: ConvShape, dot: Dot, cell: int, slack: int = 0
) -> Cells:
    """Adds the call that copies the codes of a QConv node to padded cells."""
    return copy_cells(node, ctx, shape, cell, lambda k: _with_zero(k, node, dot), slack)


def copy_cells(
    node: Node,
    ctx: Context,
    shape: ConvShape,
    cell: int,
    stored_in: Callable[[KernelBuilder], Stored],
    slack: int = 0,
    *,
    picks: bool = False,
) -> Cells:
    """Adds the call that copies the input of a node to padded cells, `slack` zero ones behind.

    Cells of all channels that are no whole blocks hold just these. Of joined blocks, windows of one
    tap that step over pixels get those alone that they read; of others where it `picks`.
    """
    x = node.required(0)
    blocks = -(-shape.channels // cell)
    is_joined = picks or block_of(x.layout) not in (1, cell)
    is_picked = picks or picks_pixels(shape, block_of(x.layout), cell)
    height, width = _span(shape.rows), _span(shape.columns)
    if is_picked:
        height, width = shape.rows.out, shape.columns.out
    sizes = (shape.channels, height, width)
    known = "x".join(str(size) for size in sizes if isinstance(size, int))
    k = KernelBuilder(ctx, node, f"cells_{known}")
    stored = stored_in(k)
    count = shape.batch * blocks * height * width * cell
    padded = k.temp("cells", stored.dtype, count + slack * cell)
    k.dims("ITEMS SLACK", (shape.batch * blocks * height, slack * cell * stored.dtype.itemsize))
    k.read("x", x)
    k.write("y", padded, stored.dtype.c)
    k.dims("C CB H W", (shape.channels, blocks, shape.rows.size, shape.columns.size))
    k.dims("HP WP PT PL", (height, width, shape.rows.pad, shape.columns.pad))
    if is_joined or is_cut(x, shape.channels, cell):
        k.dim("B", -(-shape.channels // block_of(x.layout)))
        k.dims("SH SW", (shape.rows.stride, shape.columns.stride) if is_picked else (1, 1))
    k.body(copy_text(x, shape.channels, cell, stored, is_joined=is_joined))
    k.emit(grid=shape.batch * blocks * height, bytes=count * stored.dtype.itemsize)
    return Cells(padded, blocks, height, width, cell)


def picks_pixels(shape: ConvShape, block: int, cell: int) -> bool:
    """Whether joined blocks are copied without the pixels that windows of one tap step over."""
    if block in (1, cell):
        return False
    return steps_over_pixels(shape)


def steps_over_pixels(shape: ConvShape) -> bool:
    """Whether windows of one tap, none in padding, step over pixels."""
    axes = (shape.rows, shape.columns)
    alone = all(axis.taps == 1 and axis.is_inside for axis in axes)
    return alone and any(axis.stride > 1 for axis in axes)


def _span(axis: Axis) -> Dim:
    """How much of a padded axis the windows cover."""
    return (axis.out - 1) * axis.stride + axis.reach

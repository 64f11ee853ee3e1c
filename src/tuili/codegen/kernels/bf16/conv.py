"""Conv in bfloat16, directly: the input is rounded into padded cells, sums and results are f32.

What Winograd does faster it does (`winograd`), unless tile registers multiply (AMX).
"""

from __future__ import annotations

from dataclasses import replace

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.bf16.choice import as_read, plan_halves
from tuili.codegen.kernels.bf16.dot import (
    BF16_DOT,
    as_bf16,
    multiplies,
    pack_halves,
    stored_halves,
)
from tuili.codegen.kernels.bf16.ends import FloatEnds
from tuili.codegen.kernels.conv.direct import supports_direct
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.shape import ConvShape, conv_shape
from tuili.codegen.kernels.quantized.amx import AMX_HALVES, COLUMNS, amx_panels
from tuili.codegen.kernels.quantized.amx_cells import amx_steps, cut_window, print_amx_cells
from tuili.codegen.kernels.quantized.cells import CellConv, cell_name, cell_steps, print_cells
from tuili.codegen.kernels.quantized.choice import fits_amx
from tuili.codegen.kernels.quantized.input import Cells, cell_of, copy_cells
from tuili.codegen.kernels.quantized.runs import run_of, run_steps
from tuili.ir import Node, block_of
from tuili.ops.table import attr
from tuili.tensors import Array

MOST_PLAIN = 16  # channels of a row-major input, which are one cell
LEAST_USES = 32  # of a number: fewer do not pay for its rounding


def supports(node: Node, ctx: Context) -> bool:
    """Whether that is worth it, and Winograd is not better."""
    return is_worth_it(node, ctx) and isinstance(plan_halves(node, ctx), Tile)


def is_worth_it(node: Node, ctx: Context) -> bool:
    """Whether it is a dense convolution of known weights that makes much of each number."""
    if not (multiplies(node, ctx) and supports_direct(node, ctx) and attr(node, "group") == 1):
        return False
    x, weights = node.required(0), node.required(1).shape
    outputs, channels, *taps = (dim for dim in weights if isinstance(dim, int))
    uses = outputs
    for tap, stride in zip(taps, attr(node, "strides") or (1,) * len(taps), strict=True):
        uses = uses * tap // stride
    return uses >= LEAST_USES and (bool(x.layout) or channels <= MOST_PLAIN)


def emit(node: Node, ctx: Context) -> None:
    """The rounded copy of the input, then the convolution."""
    weights, x = node.required(1).constant, node.required(0)
    assert weights is not None  # supports_direct
    shape, lanes = conv_shape(node, weights.shape[2:]).flat(), ctx.target.lanes
    tile = plan_halves(node, ctx)
    assert isinstance(tile, Tile)  # supports
    conv = CellConv(as_read(shape, block_of(x.layout)), tile, lanes, BF16_DOT)
    source, steps = _read(node, ctx, conv, shape, as_bf16(weights))
    k = KernelBuilder(ctx, node, cell_name("conv_bf16_", shape))
    packed = pack_halves(steps, tile, lanes)
    print_cells(k, conv, source, packed, lambda: FloatEnds(k, node, tile.vectors * lanes))


def _read(
    node: Node, ctx: Context, conv: CellConv, shape: ConvShape, weights: Array
) -> tuple[Cells, Array]:
    """The rounded copy of the input, and the weights in the order of the loops over it."""
    cell, picks = cell_of(node.required(0), BF16_DOT.group), conv.shape is not shape
    run, slack = run_of(conv.shape, cell, BF16_DOT.group), 0
    if run is None:
        steps = cell_steps(conv, weights, cell)
    else:
        steps = run_steps(weights, run, BF16_DOT.group)
        slack = run.slack(shape, BF16_DOT.group)
        cell = shape.channels
    source = copy_cells(node, ctx, shape, cell, stored_halves, slack, picks=picks)
    if picks:
        source = replace(source, height=1, width=source.height * source.width)
    return replace(source, run=run), steps


def supports_amx(node: Node, ctx: Context) -> bool:
    """Whether tile registers do it."""
    return ctx.bf16 and fits_amx(node, ctx, AMX_HALVES) and is_worth_it(node, ctx)


def emit_amx(node: Node, ctx: Context) -> None:
    """The rounded copy of the input to cells of a step, then the convolution."""
    weights = node.required(1).constant
    assert weights is not None  # supports_direct
    shape = conv_shape(node, weights.shape[2:])
    window = cut_window(shape, AMX_HALVES, block_of(node.required(0).layout))
    panels = amx_panels(amx_steps(window, as_bf16(weights)))
    source = copy_cells(node, ctx, shape.flat(), window.cell, stored_halves, window.slack)
    k = KernelBuilder(ctx, node, cell_name("conv_bf16_amx", shape))
    print_amx_cells(k, window, source, panels, lambda: FloatEnds(k, node, COLUMNS))

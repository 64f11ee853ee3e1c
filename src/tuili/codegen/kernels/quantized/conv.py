"""QConv: direct convolution of codes into blocked output, all that follows in its stores."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.conv.shape import conv_shape
from tuili.codegen.kernels.quantized.amx import AMX_BYTES, amx_panels, sums_of
from tuili.codegen.kernels.quantized.amx_cells import amx_steps, cut_window, print_amx_cells
from tuili.codegen.kernels.quantized.cells import CellConv, cell_name, cell_steps, print_cells
from tuili.codegen.kernels.quantized.choice import AmxPlan, plan_qconv
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.input import Run, cell_of, copy_codes, read_input
from tuili.codegen.kernels.quantized.runs import run_of, run_steps
from tuili.codegen.kernels.quantized.sums import Sums, are_sums_known
from tuili.codegen.kernels.quantized.tile import pack_best
from tuili.ir import Node, block_of
from tuili.ops.table import attr
from tuili.tensors import Array


def supports(node: Node, ctx: Context) -> bool:
    """Whether known weights meet maps of rank 3 or 4, and the result is blocked."""
    x, y = node.required(0), node.output
    fits = len(x.shape) in (3, 4) and y.layout == ctx.target.layout
    return fits and x.layout in ("", ctx.target.layout) and are_sums_known(node)


def emit(node: Node, ctx: Context) -> None:
    """The copy of the input where one is needed, then the convolution."""
    weights = node.required(1).constant
    assert weights is not None  # supports
    shape = conv_shape(node, weights.shape[2:]).flat()
    lanes, x = ctx.target.lanes, node.required(0)
    tile = plan_qconv(node, ctx)
    assert isinstance(tile, Tile)  # what fits Winograd has been taken by it

    def conv(dot: Dot) -> CellConv:
        return CellConv(shape, tile, lanes, dot, attr(node, "group"))

    def run(dot: Dot) -> Run | None:
        is_few = not x.layout and attr(node, "group") == 1
        return run_of(shape, cell_of(x, dot.group), dot.group) if is_few else None

    def arrange(dot: Dot) -> Array:
        taps = run(dot)
        if taps is not None:
            return run_steps(weights, taps, dot.group)
        return cell_steps(conv(dot), weights, cell_of(x, dot.group))

    dot, packed = pack_best(ctx.target, weights, tile, arrange)
    source = read_input(node, ctx, shape, dot, run(dot))
    k = KernelBuilder(ctx, node, cell_name("qconv", shape))
    print_cells(k, conv(dot), source, packed, lambda: Sums(k, node, dot, packed.sums))


def supports_amx(node: Node, ctx: Context) -> bool:
    """Whether tile registers do it best."""
    return supports(node, ctx) and isinstance(plan_qconv(node, ctx), AmxPlan)


def emit_amx(node: Node, ctx: Context) -> None:
    """The copy of the input to cells of a step, then the convolution."""
    weights, dot = node.required(1).constant, AMX_BYTES[node.required(0).dtype]
    assert weights is not None  # supports
    shape = conv_shape(node, weights.shape[2:])
    window = cut_window(shape, dot, block_of(node.required(0).layout))
    steps = amx_steps(window, weights)
    source = copy_codes(node, ctx, shape.flat(), dot, window.cell, window.slack)
    k = KernelBuilder(ctx, node, cell_name("qconv_amx", shape))
    sums = sums_of(steps)
    print_amx_cells(k, window, source, amx_panels(steps), lambda: Sums(k, node, dot, sums))

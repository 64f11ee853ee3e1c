"""MatMul in bfloat16: rows are rounded before they meet the weights, sums and results are f32."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.bf16.dot import (
    BF16_DOT,
    as_bf16,
    multiplies,
    pack_halves,
    stored_halves,
)
from tuili.codegen.kernels.bf16.ends import FloatEnds
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.gemm.matmul import supports_packed
from tuili.codegen.kernels.quantized.amx import AMX_HALVES, COLUMNS, amx_panels
from tuili.codegen.kernels.quantized.amx_rows import (
    amx_row_steps,
    fits_amx_rows,
    padded_depth,
    print_amx_rows,
)
from tuili.codegen.kernels.quantized.row_products import (
    RowProduct,
    copy_rows,
    print_product,
    row_name,
    row_steps,
)
from tuili.codegen.kernels.quantized.tile import rank_q_tiles
from tuili.ir import Node
from tuili.lower.choice import dims_text
from tuili.tensors import Array, numel

LEAST_WIDTH = 32  # columns: fewer do not pay for the rounding of the rows


def supports(node: Node, ctx: Context) -> bool:
    """Whether the second operand is a known matrix that makes much of each number."""
    if not (multiplies(node, ctx) and supports_packed(node, ctx)):
        return False
    bias, weights = node.input(2), node.required(1).constant
    known = bias is None or (bias.constant is not None and weights is not None)
    return known and weights is not None and weights.shape[1] >= LEAST_WIDTH


def emit(node: Node, ctx: Context) -> None:
    """The rounded copy of the rows, then the product."""
    x, weights = node.required(0), node.required(1).constant
    assert weights is not None  # supports
    (depth, width), rows, lanes = weights.shape, numel(x.shape[:-1]), ctx.target.lanes
    padded = -(-depth // BF16_DOT.group) * BF16_DOT.group
    tiles = rank_q_tiles(ctx.target, rows, -(-width // lanes))
    problem = f"MatMul in bf16 {dims_text(rows, depth)} by {dims_text(depth, width)}"
    plans: dict[str, Tile | None] = {f"tile {tile}": tile for tile in tiles}
    if ctx.target.amx and fits_amx_rows(rows, depth, width):
        plans = {"amx": None} | plans
    tile = ctx.choose(node, problem, plans)
    if tile is None:
        _emit_amx(node, ctx, weights)
        return
    packed = pack_halves(row_steps(as_bf16(weights), BF16_DOT), tile, lanes)
    source = copy_rows(node, ctx, depth, padded, stored_halves)
    k = KernelBuilder(ctx, node, row_name("matmul_bf16", rows, depth, width))
    product = RowProduct(source, rows, depth, padded, width, tile, lanes, BF16_DOT)
    print_product(k, product, packed, lambda: FloatEnds(k, node, tile.vectors * lanes))


def _emit_amx(node: Node, ctx: Context, weights: Array) -> None:
    """The same in tile registers."""
    (depth, width), rows = weights.shape, numel(node.required(0).shape[:-1])
    panels = amx_panels(amx_row_steps(as_bf16(weights), AMX_HALVES))
    source = copy_rows(node, ctx, depth, padded_depth(depth, AMX_HALVES), stored_halves)
    k = KernelBuilder(ctx, node, row_name("matmul_bf16_amx", rows, depth, width))
    sizes = rows, depth, width
    print_amx_rows(k, source, sizes, AMX_HALVES, panels, lambda: FloatEnds(k, node, COLUMNS))

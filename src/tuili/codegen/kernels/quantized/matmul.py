"""QMatMul: rows of codes times known weights, with everything after it in its stores.

Codes that are stored as they are and whose depth is a multiple of a group are read in place; others
are copied first, zero padded.
"""

from __future__ import annotations

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.quantized.amx import AMX_BYTES, STEP_BYTES, amx_panels, sums_of
from tuili.codegen.kernels.quantized.amx_rows import (
    amx_row_steps,
    fits_amx_rows,
    print_amx_rows,
)
from tuili.codegen.kernels.quantized.dot import Dot
from tuili.codegen.kernels.quantized.input import stored_codes
from tuili.codegen.kernels.quantized.row_products import (
    RowProduct,
    copy_rows,
    print_product,
    row_name,
    row_steps,
)
from tuili.codegen.kernels.quantized.sums import Sums, are_sums_known
from tuili.codegen.kernels.quantized.tile import pack_best, rank_q_tiles
from tuili.ir import Node, Value
from tuili.lower.choice import dims_text
from tuili.lower.program import View
from tuili.tensors import Array, numel


def supports(node: Node, ctx: Context) -> bool:
    """Whether the weights are a known matrix, everything is row-major, and rows exist."""
    x, w = node.required(0), node.required(1)
    plain = not x.layout and not node.output.layout and len(w.shape) == 2
    return plain and are_sums_known(node) and len(x.shape) >= 1


def emit(node: Node, ctx: Context) -> None:
    """The copy of the rows where one is needed, then the product."""
    x, weights = node.required(0), node.required(1).constant
    assert weights is not None  # supports
    depth, width = weights.shape
    rows = numel(x.shape[:-1])
    lanes = ctx.target.lanes
    tiles = rank_q_tiles(ctx.target, rows, -(-width // lanes))
    problem = f"QMatMul {dims_text(rows, depth)} by {dims_text(depth, width)}"
    plans: dict[str, Tile | None] = {f"tile {tile}": tile for tile in tiles}
    if ctx.target.amx and weights.dtype == np.int8 and fits_amx_rows(rows, depth, width):
        plans = {"amx": None} | plans
    tile = ctx.choose(node, problem, plans)
    if tile is None:
        _emit_amx(node, ctx, weights)
        return
    dot, packed = pack_best(ctx.target, weights, tile, lambda dot: row_steps(weights, dot))
    source, padded = _read_rows(node, ctx, dot, depth, dot.group)
    k = KernelBuilder(ctx, node, row_name("qmatmul", rows, depth, width))
    product = RowProduct(source, rows, depth, padded, width, tile, lanes, dot)
    print_product(k, product, packed, lambda: Sums(k, node, dot, packed.sums))


def _emit_amx(node: Node, ctx: Context, weights: Array) -> None:
    """The same in tile registers."""
    (depth, width), x = weights.shape, node.required(0)
    dot, rows = AMX_BYTES[x.dtype], numel(x.shape[:-1])
    steps = amx_row_steps(weights, dot)
    source, _ = _read_rows(node, ctx, dot, depth, STEP_BYTES)
    k = KernelBuilder(ctx, node, row_name("qmatmul_amx", rows, depth, width))
    sums, sizes = sums_of(steps), (rows, depth, width)
    print_amx_rows(k, source, sizes, dot, amx_panels(steps), lambda: Sums(k, node, dot, sums))


def _read_rows(
    node: Node, ctx: Context, dot: Dot, depth: int, step: int
) -> tuple[Value | View, int]:
    """Where rows are read, and how long they are there; what is appended meets weights of zero."""
    x = node.required(0)
    padded = -(-depth // step) * step
    if dot.reads(x.dtype) and padded == depth:
        return x, depth
    return copy_rows(node, ctx, depth, padded, lambda k: stored_codes(node, dot)), padded

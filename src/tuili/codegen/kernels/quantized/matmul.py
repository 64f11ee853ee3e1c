"""QMatMul: rows of codes times known weights, with everything after it in its stores.

Codes that are stored as they are and whose depth is a multiple of a group are read in place; others
are copied first, zero padded.
"""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
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
from tuili.tensors import numel


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
    tile = ctx.choose(node, problem, {f"tile {tile}": tile for tile in tiles})
    dot, packed = pack_best(ctx.target, weights, tile, lambda dot: row_steps(weights, dot))
    source, padded = _read_rows(node, ctx, dot, depth)
    k = KernelBuilder(ctx, node, row_name("qmatmul", rows, depth, width))
    product = RowProduct(source, rows, depth, padded, width, tile, lanes, dot)
    print_product(k, product, packed, lambda: Sums(k, node, dot, packed.sums))


def _read_rows(node: Node, ctx: Context, dot: Dot, depth: int) -> tuple[Value | View, int]:
    """Where rows are read, and how long they are there; what is appended meets weights of zero."""
    x = node.required(0)
    padded = -(-depth // dot.group) * dot.group
    if dot.reads(x.dtype) and padded == depth:
        return x, depth
    return copy_rows(node, ctx, depth, padded, lambda k: stored_codes(node, dot)), padded

"""MatMul: constant weights that were half floats stay so in memory; each is widened when read.

Models in f16 and bf16 are computed in f32 (`passes/widen_half`). Their weights are f32 that 16 bits
can hold, which is what this looks for: half of the file, and half of the time where few rows wait
for memory.
"""

from __future__ import annotations

from tuili.codegen.half_vectors import half_vectors
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.half_panels import HalfPanels, kept_type
from tuili.codegen.kernels.gemm.matmul import OWN_SLOTS, supports_packed
from tuili.codegen.kernels.gemm.panel_rows import Product, emit_panels
from tuili.codegen.kernels.rounding import may_round
from tuili.ir import Node


def supports(node: Node, ctx: Context) -> bool:
    """Whether the second operand is a large constant matrix of numbers that 16 bits can hold."""
    weights = node.required(1).constant
    return (
        supports_packed(node, ctx) and kept_type(weights, rounded=may_round(node, ctx)) is not None
    )


def emit(node: Node, ctx: Context) -> None:
    """x @ constant weights; a grid item is one panel times one block of rows."""
    x, weights = node.required(0), node.required(1).constant
    dtype = kept_type(weights, rounded=may_round(node, ctx))
    assert weights is not None  # supports
    assert dtype is not None
    depth, width = weights.shape
    panels = HalfPanels(dtype, ctx.target.lanes)
    k = KernelBuilder(ctx, node, f"matmul_{dtype.value}_{depth}x{width}")
    k.read("x", x)
    k.write("y", node.output)
    k.support(half_vectors(ctx.target))
    packed = panels.pack(weights)
    k.weight("w", packed)
    product = Product(x, node.input(2), depth, width, packed.nbytes, OWN_SLOTS)
    emit_panels(k, ctx, panels, product)

"""MatMulNBits: rows times weights that stay codes of a few bits until they are multiplied."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.code_panels import CodePanels
from tuili.codegen.kernels.gemm.coded_weights import OWN_SLOTS, CodedWeights, coded_weights
from tuili.codegen.kernels.gemm.panel_rows import Product, emit_panels
from tuili.ir import Node
from tuili.tensors import Array


def supports(node: Node, ctx: Context) -> bool:
    """Whether x is f32, and the weights are known, whole, and in the order of k."""
    return coded_weights(node) is not None


def emit(node: Node, ctx: Context) -> None:
    """The product; a grid item is one panel times one block of rows."""
    x, weights = node.required(0), coded_weights(node)
    assert weights is not None  # supports
    depth, width, bits = weights.depth, weights.width, weights.bits
    has_zeros = weights.zeros is not None
    panels = CodePanels(bits, ctx.target.lanes, weights.block, has_zeros, depth)
    k = KernelBuilder(ctx, node, f"matmul_codes_{bits}_{depth}x{width}")
    k.read("x", x)
    k.write("y", node.output)
    arrays = _arrays(weights, panels)
    for name, array in arrays.items():
        k.weight(name, array)
    size = sum(array.nbytes for array in arrays.values())
    emit_panels(k, ctx, panels, Product(x, node.input(5), depth, width, size, OWN_SLOTS))


def _arrays(weights: CodedWeights, panels: CodePanels) -> dict[str, Array]:
    """What a kernel reads."""
    arrays = {"w": panels.pack(weights.codes), "scale": panels.pack_blocks(weights.scales)}
    if weights.zeros is not None:
        arrays["zero"] = panels.pack_blocks(weights.zeros * weights.scales)
    return arrays

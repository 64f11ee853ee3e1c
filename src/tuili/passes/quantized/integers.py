"""Products of whole numbers that nothing scales: exact, by the kernels of codes or of real numbers.

MatMulInteger and ConvInteger that stand without a scale behind them, or whose second operand comes
from the run. With known weights whose sums stay below 2^24 they are products of codes, whose f32
result is exact then; else real products of centred codes, in f64 where f32 would round.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.convolution import CONV_ATTRS
from tuili.passes.fold import give_way
from tuili.passes.quantized.parts import add_product
from tuili.passes.quantized.products import INTEGERS, integer_product
from tuili.tensors import Dim, DType

EXACT = 1 << 24  # whole numbers up to here are f32
LARGEST = 255  # of a centred code


def spell_integer_products(graph: Graph) -> bool:
    """Rewrite those that are left when the scaled ones are gone."""
    found = [node for node in graph.nodes if node.op in INTEGERS and _has_ranks(node)]
    for node in found:
        real = _of_codes(graph, node)
        real = _of_reals(graph, node) if real is None else real
        whole = graph.add("Cast", [real], {"to": DType.I32}, before=node, name=node.name)
        whole.output.type = node.output.type
        give_way(graph, node.output, whole.output)
        graph.remove(node)
    return bool(found)


def _has_ranks(node: Node) -> bool:
    return all(value is None or value.tensor.shape is not None for value in node.inputs)


def _of_codes(graph: Graph, node: Node) -> Value | None:
    product = integer_product(graph, node, None)
    if product is None or not product.weights.size:
        return None
    axis = INTEGERS[node.op][1]
    sums = np.abs(np.moveaxis(product.weights, axis, 0).astype(np.int64))
    largest = int(sums.reshape(sums.shape[0], -1).sum(1).max())
    return add_product(graph, product, node, node.name) if largest * LARGEST < EXACT else None


def _of_reals(graph: Graph, node: Node) -> Value:
    """Convolutions always in f64: in f32 they may be transformed, which rounds."""
    x, w = node.required(0), node.required(1)
    is_conv = node.op == "ConvInteger"
    depth: Dim = x.shape[-1] if x.shape else 1
    short = isinstance(depth, int) and depth * LARGEST**2 < EXACT
    dtype = DType.F32 if short and not is_conv else DType.F64
    left = _centred(graph, node, x, node.input(2), dtype, rows=not is_conv)
    right = _centred(graph, node, w, node.input(3), dtype, rows=is_conv)
    attrs = {name: value for name, value in node.attrs.items() if name in CONV_ATTRS}
    op = "Conv" if is_conv else "MatMul"
    return graph.add(op, [left, right], attrs if is_conv else {}, before=node).output


def _centred(
    graph: Graph, node: Node, codes: Value, zero: Value | None, dtype: DType, *, rows: bool
) -> Value:
    """Codes less their zero point; a vector of these is one for each row of weights or matrix."""
    wide = graph.add("Cast", [codes], {"to": dtype}, before=node).output
    if zero is None:
        return wide
    if rows and len(zero.shape) == 1 and zero.shape != (1,):
        below = len(codes.shape) - 1 if node.op == "ConvInteger" else 1
        shape = graph.add_constant(np.array([-1, *[1] * below]), "shape")
        zero = graph.add("Reshape", [zero, shape], before=node).output
    shift = graph.add("Cast", [zero], {"to": dtype}, before=node).output
    return graph.add("Sub", [wide, shift], before=node).output

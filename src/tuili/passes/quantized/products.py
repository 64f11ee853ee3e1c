"""Products of quantized numbers get their names: QDQ form, and what is quantized as it runs.

Conv(DequantizeLinear(x), DequantizeLinear(w), DequantizeLinear(b))  ->  QConv
MatMul and Gemm alike                                                ->  QMatMul
Mul(Cast(MatMulInteger(x, w)), scale), and ConvInteger               ->  QMatMul, QConv
Cast(Add(MatMulInteger(x, w), whole bias)), and ConvInteger          ->  Add(QMatMul, Cast(bias))
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.passes.quantized.parts import (
    BYTES,
    Codes,
    Product,
    add_product,
    centred,
    dequantized_from,
    ratio,
)
from tuili.tensors import Array, DType, numel

SAME_SCALE = 1e-5  # a bias whose scale is the product's, but for rounding


def name_quantized_products(graph: Graph) -> bool:
    """Rewrite every product of quantized numbers whose weights are known."""
    changed = False
    for node in list(graph.nodes):
        rule = RULES.get(node.op)
        # What is never run, such as a branch that a constant decides against, has no types.
        typed = all(value.type is not None for value in node.outputs)
        made = rule(graph, node) if rule is not None and typed else None
        if made is not None:
            made.type = node.output.type  # what reads it is looked at next
            give_way(graph, node.output, made)
            graph.remove(node)
            changed = True
    return changed


# -- QDQ ---------------------------------------------------------------------------------------


def _conv(graph: Graph, node: Node) -> Value | None:
    x, w = dequantized_from(node.required(0)), dequantized_from(node.required(1))
    if x is None or w is None or w.values.constant is None:
        return None
    # Products of matrices read weights of 4 bits as they are; convolutions have only bytes.
    if not (w.fit_bytes and _is_product(x, w, 0)):
        return None
    weights = centred(w.values.constant, w.zero, 0)
    return _real_product(graph, node, "QConv", (x, w, weights), node.input(2))


def _matmul(graph: Graph, node: Node) -> Value | None:
    x, w = dequantized_from(node.required(0)), dequantized_from(node.required(1))
    if x is None or w is None or not (w.is_bytes and _is_product(x, w, 1)):
        return None
    matrix = w.values.constant
    if matrix is None or matrix.ndim != 2:
        return None
    return _real_product(graph, node, "QMatMul", (x, w, centred(matrix, w.zero, 1)), None)


def _gemm(graph: Graph, node: Node) -> Value | None:
    turned = bool(attr(node, "transB"))
    x, w = dequantized_from(node.required(0)), dequantized_from(node.required(1))
    if x is None or w is None or not (w.is_bytes and _is_product(x, w, 0 if turned else 1)):
        return None
    plain = not attr(node, "transA") and attr(node, "alpha") == 1 and attr(node, "beta") == 1
    matrix = w.values.constant
    if not plain or matrix is None:
        return None
    weights = centred(matrix, w.zero, w.axis)
    weights = np.ascontiguousarray(weights.T) if turned else weights
    return _real_product(graph, node, "QMatMul", (x, w, weights), node.input(2))


def _is_product(x: Codes, w: Codes, axis: int) -> bool:
    """Whether one scale serves x, and one or one per output serves w."""
    if not (x.is_scalar and x.is_bytes):
        return False
    return w.is_scalar or w.axis % len(w.values.shape) == axis


def _real_product(
    graph: Graph, node: Node, op: str, parts: tuple[Codes, Codes, Array], bias: Value | None
) -> Value:
    x, w, weights = parts
    scale = ratio(x.scale, w.scale)
    whole = None if bias is None else _whole_bias(bias, scale)
    attrs = node.attrs if op == "QConv" else {}
    product = Product(op, x.values, x.zero, weights, whole, scale, attrs)
    made = add_product(graph, product, node, node.name)
    if bias is None or whole is not None:
        return made
    if op == "QConv" and bias.constant is not None:
        spread = bias.constant.reshape(-1, *(1,) * (weights.ndim - 2))
        bias = graph.add_constant(spread, f"{bias.name}_spread")
    elif op == "QConv":
        shape = np.array([-1, *(1,) * (weights.ndim - 2)], np.int64)
        wanted = graph.add_constant(shape, "shape")
        bias = graph.add("Reshape", [bias, wanted], before=node).output
    return graph.add("Add", [made, bias], before=node).output


def _whole_bias(bias: Value, scale: Array) -> Array | None:
    """The bias in units of the sum, when it was quantized with the product's scale."""
    codes = dequantized_from(bias)
    if codes is None or codes.values.constant is None or codes.values.dtype is not DType.I32:
        return None
    if codes.zero is not None and np.any(codes.zero):
        return None
    if codes.values.constant.ndim > 1:
        return None
    same = np.allclose(codes.scale, scale, rtol=SAME_SCALE, atol=0)
    return codes.values.constant if same else None


# -- as it runs --------------------------------------------------------------------------------


def _scaled(graph: Graph, node: Node) -> Value | None:
    """Mul(Cast(integer product), scale)."""
    for slot in (0, 1):
        cast, scale = node.required(slot).producer, node.required(1 - slot)
        if cast is None or cast.op != "Cast" or cast.output.dtype is not DType.F32:
            continue
        product = cast.required(0).producer
        multiplier = None if product is None else _multiplier(scale, product)
        found = None if multiplier is None else integer_product(graph, product, multiplier)
        if product is not None and found is not None:
            return add_product(graph, found, node, product.name)
    return None


def _added(graph: Graph, node: Node) -> Value | None:
    """Cast(Add(integer product, whole numbers)), as onnxruntime's older quantizer has it.

    Both become f32 before they are added: the same number while each is below 2^24, where f32
    holds every whole one.
    """
    add = node.required(0).producer
    if node.output.dtype is not DType.F32 or add is None or add.op != "Add":
        return None
    for slot in (0, 1):
        product, bias = add.required(slot).producer, add.required(1 - slot)
        if product is None or product.output.type != add.output.type:
            continue
        found = integer_product(graph, product, None)
        if found is not None:
            real = add_product(graph, found, node, product.name)
            whole = graph.add("Cast", [bias], {"to": DType.F32}, before=node).output
            return graph.add("Add", [real, whole], before=node).output
    return None


def integer_product(
    graph: Graph, node: Node | None, multiplier: Array | Value | None
) -> Product | None:
    """The product that a node of whole numbers is; None where it is none, or not of known bytes."""
    form = None if node is None else INTEGERS.get(node.op)
    if node is None or form is None or node.graph is not graph:
        return None
    op, axis, _ = form
    x, w = node.required(0), node.required(1)
    if x.tensor.shape is None:
        return None
    x_zero, w_zero = node.input(2), node.input(3)
    weights, known = w.constant, w_zero is None or w_zero.is_constant
    rank = 2 if op == "QMatMul" else len(x.shape)
    if weights is None or weights.ndim != rank or not known or x.dtype not in BYTES:
        return None
    if x_zero is not None and numel(x_zero.shape) != 1:
        return None
    shift = None if w_zero is None else w_zero.constant
    attrs = node.attrs if op == "QConv" else {}
    return Product(op, x, x_zero, centred(weights, shift, axis), None, multiplier, attrs)


def _multiplier(scale: Value, product: Node) -> Array | Value | None:
    """The scale as one number or a vector along the channels."""
    if scale.dtype is not DType.F32 or product.op not in INTEGERS:
        return None
    axis, rank = INTEGERS[product.op][2], len(product.output.shape)
    channels, shape = product.output.shape[axis], scale.shape
    if numel(shape) == 1:
        fits = len(shape) <= rank
    else:
        padded = (1,) * (rank - len(shape)) + tuple(shape)
        fits = padded[axis] == numel(shape) == channels
    if not fits:
        return None
    if scale.constant is not None:
        return scale.constant.reshape(-1)
    return scale if len(shape) <= 1 else None


# op: its product, and which axis of the weights and of the result the outputs are
INTEGERS = {"MatMulInteger": ("QMatMul", 1, -1), "ConvInteger": ("QConv", 0, 1)}

Rule = Callable[[Graph, Node], "Value | None"]
RULES: dict[str, Rule] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Mul": _scaled,
    "Cast": _added,
}

"""QOperator form: operators on codes are spelt as the real operator between its conversions.

QLinearConv, QLinearMatMul and QGemm with known weights become products at once; the others
(QLinearAdd, QLinearSigmoid, ...) become DequantizeLinear, the real operator, QuantizeLinear, which
later passes fuse. Codes may differ by one from the operator's own meaning where a sum is rounded
that lies halfway between two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.convolution import CONV_ATTRS
from tuili.ops.table import attr, attributes
from tuili.passes.fold import give_way
from tuili.passes.quantized.parts import (
    Codes,
    Product,
    add_product,
    centred,
    codes_of,
    dequantize,
    quantize,
    ratio,
)
from tuili.tensors import Array

Spelling = Callable[[Graph, Node], "Value | None"]
_ONE = np.array(1, np.float32)


def spell_quantized_operators(graph: Graph) -> bool:
    """Rewrite every QOperator node whose parameters are known."""
    changed = False
    for node in list(graph.nodes):
        spell = SPELLINGS.get(node.op)
        made = None if spell is None else spell(graph, node)
        if made is not None:
            made.type = node.output.type  # what reads it is looked at next
            give_way(graph, node.output, made)
            graph.remove(node)
            changed = True
    return changed


def _codes(node: Node, slot: int) -> Codes | None:
    """The codes whose values, scale and zero point are three inputs in a row."""
    return codes_of(node.required(slot), node.required(slot + 1), node.input(slot + 2))


def _result(node: Node, slot: int) -> tuple[Array, Array] | None:
    """The scale and zero point of the result, when known and one number each."""
    scale, zero = node.input(slot), node.input(slot + 1)
    if scale is None or scale.constant is None or scale.constant.size != 1:
        return None
    if zero is None:
        return scale.constant, np.zeros((), node.required(0).dtype.numpy)
    return None if zero.constant is None else (scale.constant, zero.constant)


# -- products ----------------------------------------------------------------------------------


def _conv(graph: Graph, node: Node) -> Value | None:
    x, w, y, bias = _codes(node, 0), _codes(node, 3), _result(node, 6), node.input(8)
    if node.attrs.get("channels_last") or x is None or w is None or y is None:
        return None
    if not (x.is_scalar and x.is_bytes) or w.values.constant is None:
        return None
    if bias is not None and bias.constant is None:
        return None
    attrs = {name: value for name, value in node.attrs.items() if name in CONV_ATTRS}
    product = Product(
        "QConv",
        x.values,
        x.zero,
        centred(w.values.constant, w.zero, 0),
        None if bias is None else bias.constant,
        ratio(x.scale, w.scale, by=y[0]),
        attrs,
    )
    real = add_product(graph, product, node, node.name)
    return quantize(graph, real, _ONE, y[1], node)


def _matmul(graph: Graph, node: Node) -> Value | None:
    a, b, y = _codes(node, 0), _codes(node, 3), _result(node, 6)
    if a is None or b is None or y is None or not (a.is_scalar and a.is_bytes):
        return None
    matrix = b.values.constant
    if matrix is None or matrix.ndim != 2:
        if not b.is_scalar:
            return None
        real = [dequantize(graph, codes, node) for codes in (a, b)]
        made = graph.add("MatMul", real, before=node, name=node.name).output
        return quantize(graph, made, *y, node)
    scale = ratio(a.scale, b.scale, by=y[0])
    weights = centred(matrix, b.zero, 1)
    product = Product("QMatMul", a.values, a.zero, weights, None, scale, {})
    return quantize(graph, add_product(graph, product, node, node.name), _ONE, y[1], node)


def _gemm(graph: Graph, node: Node) -> Value | None:
    a, b, c = _codes(node, 0), _codes(node, 3), node.input(6)
    has_scale = node.input(7) is not None
    y = _result(node, 7) if has_scale else None
    if a is None or b is None or not (a.is_scalar and a.is_bytes) or (has_scale and y is None):
        return None
    matrix = b.values.constant
    if attr(node, "transA") or matrix is None or (c is not None and not _is_row(c, matrix, node)):
        return None
    turned = bool(attr(node, "transB"))
    weights = centred(matrix, b.zero, 0 if turned else 1)
    scale = ratio(a.scale, b.scale, np.array(attr(node, "alpha")), by=y[0] if y else None)
    product = Product(
        "QMatMul",
        a.values,
        a.zero,
        np.ascontiguousarray(weights.T) if turned else weights,
        None if c is None else c.constant,
        scale,
        {},
    )
    real = add_product(graph, product, node, node.name)
    return real if y is None else quantize(graph, real, _ONE, y[1], node)


def _is_row(c: Value, matrix: Array, node: Node) -> bool:
    width = matrix.shape[0] if attr(node, "transB") else matrix.shape[1]
    return c.constant is not None and c.constant.size in (1, width) and c.shape[-1:] != (1,)


# -- the others --------------------------------------------------------------------------------


def _one(op: str, *kept: str) -> Spelling:
    """One input; the attributes `kept` are the real operator's too."""

    def spell(graph: Graph, node: Node) -> Value | None:
        x, y = _codes(node, 0), _result(node, 3)
        attrs = {name: value for name, value in attributes(node).items() if name in kept}
        if x is None or y is None or not x.is_scalar or node.attrs.get("channels_last"):
            return None
        real = [dequantize(graph, x, node)]
        made = graph.add(op, real, attrs, before=node, name=node.name).output
        return quantize(graph, made, *y, node)

    return spell


def _two(op: str) -> Spelling:
    def spell(graph: Graph, node: Node) -> Value | None:
        a, b, y = _codes(node, 0), _codes(node, 3), _result(node, 6)
        if a is None or b is None or y is None or not (a.is_scalar and b.is_scalar):
            return None
        real = [dequantize(graph, codes, node) for codes in (a, b)]
        return quantize(graph, graph.add(op, real, before=node, name=node.name).output, *y, node)

    return spell


def _softmax(graph: Graph, node: Node) -> Value | None:
    """Before opset 13 all axes from `axis` on are one."""
    rank = len(node.output.shape)
    if int(attr(node, "opset")) < 13 and int(attr(node, "axis")) % rank != rank - 1:
        return None
    return _one("Softmax", "axis")(graph, node)


def _mean(graph: Graph, node: Node) -> Value | None:
    """The axes are an attribute; none are all."""
    x, y, axes = _codes(node, 0), _result(node, 3), attr(node, "axes")
    if x is None or y is None or not x.is_scalar:
        return None
    real = [dequantize(graph, x, node)]
    if axes:
        real.append(graph.add_constant(np.array(axes, np.int64), "axes"))
    attrs = {"keepdims": attr(node, "keepdims")}
    made = graph.add("ReduceMean", real, attrs, before=node, name=node.name).output
    return quantize(graph, made, *y, node)


def _concat(graph: Graph, node: Node) -> Value | None:
    y = _result(node, 0)
    pieces = [_codes(node, slot) for slot in range(2, len(node.inputs), 3)]
    known = [piece for piece in pieces if piece is not None and piece.is_scalar]
    if y is None or len(known) < len(pieces):
        return None
    real = [dequantize(graph, piece, node) for piece in known]
    made = graph.add("Concat", real, {"axis": attr(node, "axis")}, before=node, name=node.name)
    return quantize(graph, made.output, *y, node)


def _where(graph: Graph, node: Node) -> Value | None:
    x, y, z = _codes(node, 1), _codes(node, 4), _result(node, 7)
    if x is None or y is None or z is None or not (x.is_scalar and y.is_scalar):
        return None
    real = [node.input(0), dequantize(graph, x, node), dequantize(graph, y, node)]
    made = graph.add("Where", real, before=node, name=node.name).output
    return quantize(graph, made, *z, node)


def _renamed(op: str) -> Spelling:
    def spell(graph: Graph, node: Node) -> Value | None:
        attrs = {"axis": attr(node, "axis")}
        return graph.add(op, node.inputs, attrs, before=node, name=node.name).output

    return spell


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads")

SPELLINGS: dict[str, Spelling] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "com.microsoft::QLinearConv": _conv,
    "com.microsoft::QGemm": _gemm,
    "com.microsoft::QLinearAdd": _two("Add"),
    "com.microsoft::QLinearMul": _two("Mul"),
    "com.microsoft::QLinearSigmoid": _one("Sigmoid"),
    "com.microsoft::QLinearLeakyRelu": _one("LeakyRelu", "alpha"),
    "com.microsoft::QLinearSoftmax": _softmax,
    "com.microsoft::QLinearGlobalAveragePool": _one("GlobalAveragePool"),
    "com.microsoft::QLinearAveragePool": _one("AveragePool", *_POOL, "strides"),
    "com.microsoft::QLinearConcat": _concat,
    "com.microsoft::QLinearReduceMean": _mean,
    "com.microsoft::QLinearWhere": _where,
    "com.microsoft::QuantizeLinear": _renamed("QuantizeLinear"),
    "com.microsoft::DequantizeLinear": _renamed("DequantizeLinear"),
}

"""Gemm becomes MatMul with its scales and transpositions folded into the constants.

Y = alpha * A' @ B' + beta * C, as MatMul(A', alpha * B') + beta * C.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.tensors import DType


def gemm_to_matmul(graph: Graph) -> bool:
    """Rewrite every Gemm in f32 or f64."""
    gemms = [node for node in graph.nodes if node.op == "Gemm" and _has_products(node)]
    for node in gemms:
        _rewrite(graph, node)
    return bool(gemms)


def _has_products(node: Node) -> bool:
    return node.output.dtype in (DType.F32, DType.F64)


def _rewrite(graph: Graph, node: Node) -> None:
    a = _transposed(graph, node, node.required(0)) if attr(node, "transA") else node.required(0)
    b = _transposed(graph, node, node.required(1)) if attr(node, "transB") else node.required(1)
    b = _scaled(graph, node, b, attr(node, "alpha"))
    made = graph.add(
        "MatMul", [a, b, None], name=node.name, types=[node.output.type], before=node
    ).output
    c = node.input(2)
    if c is not None and attr(node, "beta") != 0:
        c = _scaled(graph, node, c, attr(node, "beta"))
        made = graph.add("Add", [made, c], types=[node.output.type], before=node).output
    give_way(graph, node.output, made)
    graph.remove(node)


def _transposed(graph: Graph, node: Node, value: Value) -> Value:
    if value.constant is not None:
        return graph.add_constant(np.ascontiguousarray(value.constant.T), f"{value.name}_t")
    shape = (value.shape[1], value.shape[0])
    type_ = TensorType(value.dtype, shape)
    return graph.add("Transpose", [value], {"perm": (1, 0)}, types=[type_], before=node).output


def _scaled(graph: Graph, node: Node, value: Value, scale: float) -> Value:
    if scale == 1:
        return value
    factor = np.array(scale, value.dtype.numpy)
    if value.constant is not None:
        return graph.add_constant(np.asarray(value.constant * factor), f"{value.name}_scaled")
    factor = graph.add_constant(factor, "scale")
    return graph.add("Mul", [value, factor], types=[value.type], before=node).output

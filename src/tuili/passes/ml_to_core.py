"""ai.onnx.ml operators that say in other words what core operators say.

ArrayFeatureExtractor(X, Y) picks along the last axis by the flat indices Y: a Gather. A vector X
counts as one row.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.passes.fold import give_way
from tuili.tensors import DType, Shape, numel


def ml_to_core(graph: Graph) -> bool:
    """Rewrite every such node whose shapes are known."""
    found = [node for node in graph.nodes if _is_extractor(node)]
    for node in found:
        _rewrite(graph, node)
    return bool(found)


def _is_extractor(node: Node) -> bool:
    if node.op != "ai.onnx.ml::ArrayFeatureExtractor":
        return False
    types = (node.required(0).type, node.required(1).type, node.output.type)
    known = all(isinstance(type_, TensorType) and type_.shape for type_ in types)
    return known and node.required(0).dtype is not DType.STR


def _rewrite(graph: Graph, node: Node) -> None:
    x, y = node.required(0), node.required(1)
    indices = _reshaped(graph, node, y, (numel(y.shape),))
    if len(x.shape) == 1:
        x = _reshaped(graph, node, x, (1, *x.shape))
    picked = graph.add(
        "Gather",
        [x, indices],
        {"axis": len(x.shape) - 1},
        types=[node.output.type],
        name=node.name,
        before=node,
    )
    give_way(graph, node.output, picked.output)
    graph.remove(node)


def _reshaped(graph: Graph, node: Node, value: Value, shape: Shape) -> Value:
    """The value with its last dim taking what is left over."""
    sizes = [
        dim if isinstance(dim, int) and index < len(shape) - 1 else -1
        for index, dim in enumerate(shape)
    ]
    target = graph.add_constant(np.array(sizes, np.int64), "shape")
    type_ = TensorType(value.dtype, shape)
    return graph.add("Reshape", [value, target], types=[type_], before=node).output

"""Shape folding: small integer tensors whose elements are known become constants or `Dims`.

Shape, Gather, Concat and the like then have no readers, and Reshape, Expand, Resize, ... see their
parameters as symbolic dims.
"""

from __future__ import annotations

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents, concrete, symbols_in
from tuili.passes.fold import bound_symbols, give_way
from tuili.tensors import DType


def fold_shapes(graph: Graph, contents: Contents, bound: set[str] | None = None) -> bool:
    """Replace what is known; the node that computed it becomes dead.

    `bound` are the symbols that a `Dims` node may use, by default those of the inputs.
    """
    changed = False
    bound = bound_symbols(graph) if bound is None else bound
    for node in list(graph.nodes):
        for nested in node.graphs():
            changed |= fold_shapes(nested, contents, bound)
        if node.op != "Dims" and not node.graphs():
            for value in node.outputs:
                changed |= _fold(graph, node, value, contents, bound)
    return changed


def _fold(graph: Graph, node: Node, value: Value, contents: Contents, bound: set[str]) -> bool:
    elements = contents.get(value)
    if elements is None or not value.uses:
        return False
    array = concrete(elements, value.dtype)
    if array is not None:
        give_way(graph, value, graph.add_constant(array, value.name))
        return True
    if value.dtype is not DType.I64 or elements.ndim > 1:
        return False
    if not symbols_in(elements.ravel()) <= bound:
        return False
    attrs = {"values": tuple(elements.ravel().tolist()), "rank0": int(elements.ndim == 0)}
    dims = graph.add("Dims", [], attrs, outputs=[value.name], types=[value.type], after=node)
    give_way(graph, value, dims.output)
    return True

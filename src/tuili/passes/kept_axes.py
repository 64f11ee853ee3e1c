"""A reduction whose axes are put back behind it keeps them itself: `x.amax(-1).unsqueeze(-1)`."""

from __future__ import annotations

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.fold import give_way

_VIEWS = ("Unsqueeze", "Reshape")


def keep_axes(graph: Graph, contents: Contents) -> bool:
    """Let every such reduction have the shape that its only reader gives it."""
    changed = False
    for node in list(graph.nodes):
        reduction = node.required(0).producer if node.op in _VIEWS else None
        if reduction is not None and _drops_what_is_put_back(reduction, node, contents):
            reduction.attrs["keepdims"] = 1
            reduction.output.type = node.output.type
            give_way(graph, node.output, reduction.output)
            graph.remove(node)
            changed = True
    return changed


def _drops_what_is_put_back(reduction: Node, view: Node, contents: Contents) -> bool:
    if not reduction.op.startswith("Reduce") or attr(reduction, "keepdims"):
        return False
    if reduction.graph is not view.graph or len(reduction.output.uses) != 1:
        return False
    kept = _kept(reduction, contents)
    return not reduction.output.is_output and kept is not None and view.output.tensor.shape == kept


def _kept(reduction: Node, contents: Contents) -> tuple[object, ...] | None:
    """The shape with the reduced axes as ones; None where the axes are not known."""
    data: Value = reduction.required(0)
    axes = contents.dims(reduction.input(1)) or attr(reduction, "axes")
    if data.tensor.shape is None or not axes or not all(isinstance(axis, int) for axis in axes):
        return None
    reduced = {axis % len(data.shape) for axis in axes}
    return tuple(1 if at in reduced else dim for at, dim in enumerate(data.shape))

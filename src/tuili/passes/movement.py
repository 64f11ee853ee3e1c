"""Movement merging: chains of views become one Reshape, chains of transpositions one Transpose."""

from __future__ import annotations

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents, symbols_in
from tuili.ops.table import attr
from tuili.passes.fold import bound_symbols, give_way, shape_value

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def merge_movement(graph: Graph, contents: Contents, bound: set[str] | None = None) -> bool:
    """Merge each node with the one before it; `bound` as in `fold_shapes`."""
    changed = False
    bound = bound_symbols(graph) if bound is None else bound
    for node in list(graph.nodes):
        for nested in node.graphs():
            changed |= merge_movement(nested, contents, bound)
        if node.op in VIEWS:
            changed |= _merge_views(graph, node, bound)
        elif node.op == "Transpose":
            changed |= _merge_transposes(graph, node) or _transpose_as_view(graph, node, bound)
    return changed


def _merge_views(graph: Graph, node: Node, bound: set[str]) -> bool:
    before = node.required(0).producer
    if before is None or before.op not in VIEWS:
        return False
    return _reshape(graph, node, before.required(0), bound)


def _reshape(graph: Graph, node: Node, source: Value, bound: set[str]) -> bool:
    type_ = node.output.type
    if not isinstance(type_, TensorType) or type_.shape is None:
        return False
    if not symbols_in(type_.shape) <= bound:
        return False
    shape = shape_value(graph, type_.shape, node)
    made = graph.add("Reshape", [source, shape], types=[type_], name=node.name, before=node)
    if 0 in type_.shape:
        made.attrs["allowzero"] = 1  # a size, not "as before"
    give_way(graph, node.output, made.output)
    graph.remove(node)
    return True


def permutation(node: Node) -> tuple[int, ...]:
    """The axes of a Transpose, the default being their reverse."""
    found = attr(node, "perm")
    return tuple(found or reversed(range(len(node.required(0).shape))))


def _merge_transposes(graph: Graph, node: Node) -> bool:
    before = node.required(0).producer
    if before is None or before.op != "Transpose" or not _has_rank(before.required(0)):
        return False
    first, second = permutation(before), permutation(node)
    node.attrs["perm"] = tuple(first[axis] for axis in second)
    node.set_input(0, before.required(0))
    return True


def _has_rank(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None


def _transpose_as_view(graph: Graph, node: Node, bound: set[str]) -> bool:
    """A Transpose that only moves axes of size 1 leaves every element in its place."""
    if not _has_rank(node.required(0)):
        return False
    shape = node.required(0).shape
    moved = [axis for axis in permutation(node) if shape[axis] != 1]
    return moved == sorted(moved) and _reshape(graph, node, node.required(0), bound)

"""Constant folding: nodes whose inputs are all known are run now, by their NumPy meaning."""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import symbols_in
from tuili.ops.interpret import run_node
from tuili.ops.table import lookup
from tuili.tensors import DType, Shape, numel

MOST_BYTES = 64 << 20  # a result that is larger is not worth storing


def fold_constants(graph: Graph, kept: frozenset[str] = frozenset()) -> bool:
    """Replace every node of constants by its results; operators in `kept` stay."""
    changed = False
    for node in list(graph.nodes):
        for nested in node.graphs():
            changed |= fold_constants(nested, kept)
        if node.op not in kept and _is_foldable(node):
            _fold(graph, node)
            changed = True
    return changed


def _is_foldable(node: Node) -> bool:
    known = all(value is None or value.is_constant for value in node.inputs)
    if not known or node.graphs() or node.op == "Dims" or lookup(node.op).random:
        return False
    return all(_is_small(value) for value in node.outputs)


def _is_small(value: Value) -> bool:
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.shape is None or type_.dtype is DType.STR:
        return False
    size = numel(type_.shape)
    return isinstance(size, int) and size * type_.dtype.itemsize <= MOST_BYTES


def _fold(graph: Graph, node: Node) -> None:
    inputs = [None if value is None else value.constant for value in node.inputs]
    for value, array in zip(node.outputs, run_node(node, inputs), strict=False):
        constant = graph.add_constant(array.astype(value.dtype.numpy, copy=False), value.name)
        give_way(graph, value, constant)
    graph.remove(node)


def shape_value(graph: Graph, shape: Shape, before: Node) -> Value:
    """A shape as a value: a constant when it is known, else a `Dims` node."""
    if all(isinstance(dim, int) for dim in shape):
        return graph.add_constant(np.array(shape, np.int64), "shape")
    type_ = TensorType(DType.I64, (len(shape),))
    attrs = {"values": shape, "rank0": 0}
    return graph.add("Dims", [], attrs, outputs=["dims"], types=[type_], before=before).output


def bound_symbols(graph: Graph) -> set[str]:
    """The symbols that the shapes of the graph's inputs give a value.

    Others stand for data, or for elements of sequences: they are known only as long as the node
    that computes them stays.
    """
    types = [value.type for value in graph.inputs]
    shapes = [type_.shape for type_ in types if isinstance(type_, TensorType)]
    return {name for shape in shapes for name in symbols_in(shape or ())}


def give_way(graph: Graph, old: Value, new: Value) -> None:
    """Let `new` replace `old` everywhere; a graph output keeps its name."""
    name, named = old.name, any(user is graph for user, _ in old.uses)
    graph.replace_uses(old, new)
    if named and new not in graph.inputs and not _is_output_twice(graph, new):
        graph.rename(old, f"{name}_")
        graph.rename(new, name)


def _is_output_twice(graph: Graph, value: Value) -> bool:
    return graph.outputs.count(value) > 1

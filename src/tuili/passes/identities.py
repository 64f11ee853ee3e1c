"""Identities: nodes that change nothing, one predicate per operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.fold import give_way

Predicate = Callable[[Node, Contents], bool]


def remove_identities(graph: Graph, contents: Contents) -> bool:
    """Let the readers of such a node read its input."""
    changed = False
    for node in list(graph.nodes):
        for nested in node.graphs():
            changed |= remove_identities(nested, contents)
        rule = RULES.get(node.op)
        if rule is not None and rule(node, contents) and _is_replaceable(graph, node):
            give_way(graph, node.output, node.required(0))
            graph.remove(node)
            changed = True
    return changed


def _is_replaceable(graph: Graph, node: Node) -> bool:
    """An output keeps a node of its own when its source has another name to keep."""
    if any(value.uses for value in node.outputs[1:]):
        return False
    source = node.required(0)
    has_name = source.is_output or source.producer is None or source.producer.graph is not graph
    return not (node.output.is_output and has_name)


def _keeps_shape(node: Node, contents: Contents) -> bool:
    return _shape(node.required(0)) is not None and _shape(node.required(0)) == _shape(node.output)


def _shape(value: Value) -> Sequence[object] | None:
    return value.type.shape if isinstance(value.type, TensorType) else None


def _always(node: Node, contents: Contents) -> bool:
    return True


def _same_type(node: Node, contents: Contents) -> bool:
    return node.required(0).type == node.output.type


def _is_rounded_below(node: Node, contents: Contents) -> bool:
    """Whether every reader rounds to the same type: twice is once."""
    readers = node.output.users
    kind = attr(node, "to")
    same = (each.op in ("Cast", "RoundTo") and attr(each, "to") is kind for each in readers)
    return bool(readers) and not node.output.is_output and all(same)


def _no_permutation(node: Node, contents: Contents) -> bool:
    shape = _shape(node.required(0))
    if shape is None:
        return False
    perm = attr(node, "perm") or tuple(reversed(range(len(shape))))
    moved = [axis for axis in perm if shape[axis] != 1]
    # Axes of size 1 may go anywhere only if the shape stays the same.
    return tuple(perm) == tuple(range(len(shape))) or (
        moved == sorted(moved) and _shape(node.output) == shape
    )


def _one_input(node: Node, contents: Contents) -> bool:
    return len(node.inputs) == 1


def _is_dropout_at_rest(node: Node, contents: Contents) -> bool:
    training = node.input(2)
    return training is None or contents.dims(training) == (0,)


def _no_padding(node: Node, contents: Contents) -> bool:
    pads = contents.dims(node.input(1))
    return pads is not None and all(pad == 0 for pad in pads)


def _is_whole_slice(node: Node, contents: Contents) -> bool:
    steps = contents.dims(node.input(4))
    forwards = node.input(4) is None or (steps is not None and all(step == 1 for step in steps))
    return forwards and _keeps_shape(node, contents)


def _neutral(number: float) -> Predicate:
    """x + 0, x * 1: the second operand is the number everywhere and does not widen the shape."""

    def rule(node: Node, contents: Contents) -> bool:
        other = node.required(1).constant
        same = other is not None and bool(np.all(other == number))
        return same and _same_type(node, contents)

    return rule


RULES: dict[str, Predicate] = {
    "Identity": _always,
    "Dropout": _is_dropout_at_rest,
    "Cast": _same_type,
    "CastLike": _same_type,
    "RoundTo": _is_rounded_below,
    "Reshape": _keeps_shape,
    "Squeeze": _keeps_shape,
    "Unsqueeze": _keeps_shape,
    "Flatten": _keeps_shape,
    "Expand": _keeps_shape,
    "Tile": _keeps_shape,
    "Transpose": _no_permutation,
    "Concat": _one_input,
    "Sum": _one_input,
    "Mean": _one_input,
    "Max": _one_input,
    "Min": _one_input,
    "Pad": _no_padding,
    "Slice": _is_whole_slice,
    "Add": _neutral(0),
    "Sub": _neutral(0),
    "Mul": _neutral(1),
    "Div": _neutral(1),
    "Pow": _neutral(1),
}

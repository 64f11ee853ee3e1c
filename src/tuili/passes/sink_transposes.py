"""Transpositions sink below elementwise operators, to where others undo them.

Networks with the channels last are transposed around every convolution. Between two of these stand
sums, activations and conversions of codes, which do not care for the order of axes:

    Add(Transpose(x), Transpose(y))  ->  Transpose(Add(x, y))

`merge_movement` then removes what meets its inverse. A node is passed where one of these waits
below, or where several transpositions become one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.ir import Attr, Graph, Node, TensorType, Value
from tuili.ops.table import attr, find
from tuili.passes.fold import give_way
from tuili.passes.movement import permutation
from tuili.tensors import Shape, numel

Perm = tuple[int, ...]

# The operators beside elementwise ones; scales along an axis are not passed.
_WITH_AXIS = frozenset({"Concat", "QuantizeLinear", "DequantizeLinear"})


def sink_transposes(graph: Graph) -> bool:
    """Move transpositions below every node that gains by it; nested graphs are left alone."""
    changed = False
    for node in list(graph.nodes):
        perm = _perm_above(node) if _is_indifferent(node) else None
        if perm is not None and _pays(node, perm):
            changed |= _sink(graph, node, perm)
    return changed


def _is_indifferent(node: Node) -> bool:
    """Whether the order of axes makes no difference, but for the numbers of axes that it names."""
    row = find(node.op)
    if len(node.outputs) != 1 or row is None or node.graphs():
        return False
    return (row.elementwise or node.op in _WITH_AXIS) and _is_ranked(node.output)


def _is_ranked(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None


def _transpose_above(value: Value | None) -> Node | None:
    node = None if value is None else value.producer
    fits = node is not None and node.op == "Transpose" and _is_ranked(node.required(0))
    return node if fits else None


def _perm_above(node: Node) -> Perm | None:
    """The permutation of the first input that is transposed."""
    for value in node.inputs:
        above = _transpose_above(value)
        if above is not None and above.graph is node.graph:
            return permutation(above)
    return None


# -- whether it pays -----------------------------------------------------------------------------


def _pays(node: Node, perm: Perm) -> bool:
    above = {found for value in node.inputs if (found := _transpose_above(value)) is not None}
    if not all(_may_wait(user) for each in above for user in each.output.users):
        return False
    if any(each.output.is_output for each in above):
        return False
    fewer = len(above) > 1 and all(len(each.output.users) == 1 for each in above)
    return fewer or _is_undone_below(node, _inverse(perm))


def _may_wait(user: Node) -> bool:
    """Whether a reader of the transposed value can do without it."""
    return user.op == "Transpose" or _is_indifferent(user)


def _is_undone_below(node: Node, inverse: Perm) -> bool:
    seen, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().output.users:
            if user.op == "Transpose" and permutation(user) == inverse:
                return True
            if user not in seen and _is_indifferent(user):
                seen.add(user)
                waiting.append(user)
    return False


def _inverse(perm: Perm) -> Perm:
    return tuple(int(axis) for axis in np.argsort(perm))


# -- moving --------------------------------------------------------------------------------------


def _sink(graph: Graph, node: Node, perm: Perm) -> bool:
    attrs = _attributes(node, perm)
    if attrs is None or len(node.output.shape) != len(perm):
        return False
    if not all(_can_turn(value, perm) for value in node.inputs):
        return False
    inputs = [_turned(graph, value, perm, node) for value in node.inputs]
    type_ = TensorType(node.output.dtype, _permuted(node.output.shape, _inverse(perm)))
    made = graph.add(node.op, inputs, attrs, types=[type_], name=node.name, before=node)
    types = [node.output.type]
    moved = graph.add("Transpose", [made.output], {"perm": perm}, types=types, before=node)
    give_way(graph, node.output, moved.output)
    graph.remove(node)
    return True


def _attributes(node: Node, perm: Perm) -> dict[str, Attr] | None:
    """The attributes for the axes as they were; None for parameters along one of them."""
    if node.op == "Concat":
        return {**node.attrs, "axis": perm[int(attr(node, "axis")) % len(perm)]}
    along = node.op in _WITH_AXIS and any(_size(value) != 1 for value in node.inputs[1:])
    return None if along else node.attrs


def _size(value: Value | None) -> object:
    return 1 if value is None else numel(value.shape)


def _permuted(shape: Shape, perm: Sequence[int]) -> Shape:
    return tuple(shape[axis] for axis in perm)


def _can_turn(value: Value | None, perm: Perm) -> bool:
    if value is None:
        return True
    if not _is_ranked(value) or len(value.shape) > len(perm):
        return False
    above = _transpose_above(value)
    if above is not None and permutation(above) == perm:
        return True
    return numel(value.shape) == 1 or value.is_constant or _turns_as_view(value, perm)


def _turns_as_view(value: Value, perm: Perm) -> bool:
    """Whether only axes of size 1 would move, so that nothing does in memory."""
    if len(value.shape) != len(perm):
        return False
    moved = [axis for axis in _inverse(perm) if value.shape[axis] != 1]
    return moved == sorted(moved)


def _turned(graph: Graph, value: Value | None, perm: Perm, node: Node) -> Value | None:
    """An input with its axes as they were above the transposition."""
    if value is None:
        return None
    above, inverse = _transpose_above(value), _inverse(perm)
    if above is not None and permutation(above) == perm:
        return above.required(0)
    if numel(value.shape) == 1:
        return value
    if value.constant is not None:
        full = value.constant.reshape(
            (1,) * (len(perm) - value.constant.ndim) + value.constant.shape
        )
        return graph.add_constant(np.ascontiguousarray(full.transpose(inverse)), value.name)
    types = [TensorType(value.dtype, _permuted(value.shape, inverse))]
    return graph.add("Transpose", [value], {"perm": inverse}, types=types, before=node).output

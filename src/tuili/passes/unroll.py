"""Short loops with a known number of rounds become the nodes of their rounds.

What depends on the number of the round is then known: slices of it have sizes, lists have items.
TorchScript writes `for` so, even over one item, and a loop that carries a list runs in Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents
from tuili.ops.control import goes_on
from tuili.ops.table import attr, lookup
from tuili.passes.branches import own
from tuili.passes.copying import Copying
from tuili.passes.fold import bound_symbols, give_way
from tuili.tensors import DType, numel


class Bound(NamedTuple):
    """What unrolling may add to a graph; one round adds nothing."""

    rounds: int
    more_nodes: int  # (rounds - 1) x nodes of the body


NATIVE = Bound(rounds=8, more_nodes=64)  # a kernel runs the rounds; sizes may become known
PYTHON = Bound(rounds=64, more_nodes=1024)  # every node of every round would be Python's


@dataclass(slots=True)
class _Rounds:
    """A loop as rounds: where states start, what else each round is given, how parts are joined."""

    node: Node
    body: Graph
    count: int
    initial: list[Value]
    leading: int = 0  # inputs of the body before the states
    skipped: int = 0  # outputs of the body before the states
    scanned: list[tuple[Value, int, bool]] = field(default_factory=list[tuple[Value, int, bool]])
    joins: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])


def unroll_loops(graph: Graph, contents: Contents) -> bool:
    """Unroll what is short enough, the innermost first, in a typed graph."""
    return _unroll_all(graph, contents, bound_symbols(graph))


def _unroll_all(graph: Graph, contents: Contents, bound: set[str]) -> bool:
    changed = False
    for node in list(graph.nodes):
        for nested in node.graphs():
            changed |= _unroll_all(nested, contents, bound)
        rounds = _READ[node.op](node, contents) if node.op in _READ else None
        if rounds is not None and _is_short(rounds):
            _unroll(graph, rounds, bound)
            changed = True
    return changed


# -- which loops -------------------------------------------------------------------------------


def _read_loop(node: Node, contents: Contents) -> _Rounds | None:
    body, states = node.graphs()[0], len(node.inputs) - 2
    count = contents.number(node.input(0))
    first = node.input(1)
    begins = first is None or contents.number(first) == 1
    if count is None or not begins or not goes_on(body, contents):
        return None
    initial = [node.required(slot) for slot in range(2, len(node.inputs))]
    joins = [(0, False)] * (len(node.outputs) - states)
    return _Rounds(node, body, max(count, 0), initial, leading=2, skipped=1, joins=joins)


def _read_scan(node: Node, contents: Contents) -> _Rounds | None:
    body, inputs = node.graphs()[0], [node.required(slot) for slot in range(len(node.inputs))]
    states = len(inputs) - int(attr(node, "num_scan_inputs"))
    axes, backward = attr(node, "scan_input_axes"), attr(node, "scan_input_directions")
    scanned: list[tuple[Value, int, bool]] = []
    for index, value in enumerate(inputs[states:]):
        if not isinstance(value.type, TensorType) or not value.type.shape:
            return None
        axis = _item(axes, index) % len(value.shape)
        scanned.append((value, axis, bool(_item(backward, index))))
    count = scanned[0][0].shape[scanned[0][1]] if scanned else None
    if not isinstance(count, int):
        return None
    axes, backward = attr(node, "scan_output_axes"), attr(node, "scan_output_directions")
    joins = [
        (_item(axes, index), bool(_item(backward, index)))
        for index in range(len(node.outputs) - states)
    ]
    return _Rounds(node, body, count, inputs[:states], scanned=scanned, joins=joins)


_READ = {"Loop": _read_loop, "Scan": _read_scan}


def _item(numbers: Iterable[int] | None, index: int) -> int:
    return list(numbers)[index] if numbers else 0


def _is_short(rounds: _Rounds) -> bool:
    nodes = list(rounds.body.walk())
    if any(lookup(node.op).random for node in nodes):
        return False  # the numbers of a seed follow one another
    if rounds.count == 0 and not all(map(_is_empty, rounds.node.outputs[len(rounds.initial) :])):
        return False
    most = PYTHON if _has_objects(rounds, nodes) else NATIVE
    more_nodes = (rounds.count - 1) * len(nodes)
    return rounds.count <= most.rounds and more_nodes <= most.more_nodes


def _has_objects(rounds: _Rounds, nodes: list[Node]) -> bool:
    """Whether something is no tensor of known rank, which kernels work on; text stays Python's."""
    made = [value for node in nodes for value in node.outputs]
    values = [*rounds.body.inputs, *rounds.node.outputs, *made]
    return any(value.is_object for value in values) and not any(map(_is_text, values))


def _is_text(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype is DType.STR


def _is_empty(value: Value) -> bool:
    """Whether a value is known to have no elements, and where."""
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    return shape is not None and all(isinstance(dim, int) for dim in shape) and numel(shape) == 0


# -- the rounds --------------------------------------------------------------------------------


def _unroll(graph: Graph, rounds: _Rounds, bound: set[str]) -> None:
    node, body, states = rounds.node, rounds.body, rounds.initial
    constants = {value: _moved(graph, value) for value in body.constants.values()}
    stacks: list[list[Value]] = [[] for _ in rounds.joins]
    for number in range(rounds.count):
        copying = Copying(graph, node, f"round{number}", bound)
        copying.inner |= constants
        copying.inner |= zip(body.inputs, _given(graph, rounds, number, states), strict=True)
        for inner in body.nodes:
            copying.node(inner)
        returned = [copying.value(value) for value in body.outputs[rounds.skipped :]]
        states = returned[: len(states)]
        for stack, part in zip(stacks, returned[len(states) :], strict=True):
            stack.append(part)
    rows = zip(stacks, rounds.joins, node.outputs[len(states) :], strict=True)
    joined = [_joined(graph, node, stack, how, value) for stack, how, value in rows]
    for old, new in zip(node.outputs, (*states, *joined), strict=True):
        give_way(graph, old, own(graph, node, new))
    graph.remove(node)


def _moved(graph: Graph, value: Value) -> Value:
    assert value.constant is not None, "a constant has contents"
    return graph.add_constant(value.constant, value.name)


def _given(graph: Graph, rounds: _Rounds, number: int, states: list[Value]) -> list[Value]:
    """What the body's inputs are in one round."""
    add = partial(graph.add_constant, name=f"{rounds.node.output.name}.round{number}")
    leading = [np.array(number), np.array(True)][: rounds.leading]
    return [*map(add, leading), *states, *_parts(graph, rounds, number)]


def _parts(graph: Graph, rounds: _Rounds, number: int) -> list[Value]:
    parts: list[Value] = []
    for value, axis, backward in rounds.scanned:
        at = rounds.count - 1 - number if backward else number
        row = graph.add_constant(np.array(at), "row")
        name = f"{value.name}.round{number}"
        made = graph.add("Gather", [value, row], {"axis": axis}, outputs=[name], before=rounds.node)
        parts.append(made.output)
    return parts


def _joined(
    graph: Graph, node: Node, parts: list[Value], how: tuple[int, bool], whole: Value
) -> Value:
    """The parts of all rounds along a new axis."""
    if not parts:
        shape = [dim for dim in whole.shape if isinstance(dim, int)]
        return graph.add_constant(np.zeros(shape, whole.dtype.numpy), whole.name)
    axis, backward = how
    axes = graph.add_constant(np.array([axis]), "axes")
    add = partial(graph.add, before=node)
    rows = [add("Unsqueeze", [part, axes], outputs=[f"{part.name}.row"]).output for part in parts]
    if len(rows) == 1:
        return rows[0]
    rows = rows[::-1] if backward else rows
    return add("Concat", rows, {"axis": axis}, outputs=[f"{whole.name}.rounds"]).output

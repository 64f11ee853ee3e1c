"""What loops carry and branches give gets one rank, where nobody can tell the difference.

PaddlePaddle's exporter starts the values of a loop as placeholders of some other rank, and takes
`[]` and `[1]` for the same thing. A value whose rank is not known runs in Python, and the loop
around it too.

- A placeholder that the loop overwrites before anything reads it, in a round that surely comes,
  begins as zeros of the later shape.
- Of `[]` and `[1]` the latter is taken where all that reads them comes to the same.
- The condition of a loop is one number, whatever its rank.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import symbols_in
from tuili.ops.infer import infer
from tuili.ops.table import lookup
from tuili.tensors import Shape

MOST_ROUNDS = 8


def settle_ranks(graph: Graph) -> bool:
    """Settle ranks in a typed graph until nothing more follows."""
    for rounds in range(MOST_ROUNDS):
        bound = {name for value in graph.inputs for name in symbols_in(_shape(value) or ())}
        changes = [_settled(node, bound) for node in list(graph.walk())]
        if not any(changes):
            return rounds > 0
        infer(graph)
    return True


def _settled(node: Node, bound: set[str]) -> bool:
    if node.op == "If":
        return _join_branches(node)
    if node.op == "Loop":
        body = node.graphs()[0]
        carried = range(2, len(body.inputs))
        steps = [_condition_is_scalar(body)]
        steps += [_start_as_it_goes_on(node, body, slot, bound) for slot in carried]
        return any(steps)
    return False


def _condition_is_scalar(body: Graph) -> bool:
    condition = body.outputs[0]
    if _shape(condition) == ():
        return False
    _give(body, 0, _reshaped(body, condition, ()))
    return True


def _join_branches(node: Node) -> bool:
    changed = False
    for index, value in enumerate(node.outputs):
        shapes = [_shape(branch.outputs[index]) for branch in node.graphs()]
        if sorted(map(str, shapes)) != ["()", "(1,)"] or not _hides_rank(value):
            continue
        branch = node.graphs()[shapes.index(())]
        _give(branch, index, _reshaped(branch, branch.outputs[index], (1,)))
        changed = True
    return changed


def _start_as_it_goes_on(node: Node, body: Graph, slot: int, bound: set[str]) -> bool:
    """Settle one carried value; `slot` is its place among the inputs of node and body alike."""
    start, later = node.required(slot), body.outputs[slot - 1]
    was, becomes = _shape(start), _shape(later)
    if was is None or becomes is None or len(was) == len(becomes):
        return False
    inside, result = body.inputs[slot], node.outputs[slot - 2]
    graph = node.graph
    assert graph is not None, "a node that was found by walking has a graph"
    if (was, becomes) == ((), (1,)) and _hides_rank(inside) and _hides_rank(result):
        node.set_input(slot, _reshaped(graph, start, (1,), before=node))
        return True
    if inside.uses or not _runs_once(node) or not symbols_in(becomes) <= bound:
        return False
    zero = graph.add_constant(np.zeros((), later.dtype.numpy), "zero")
    sizes = graph.add("Dims", [], {"values": becomes}, before=node).output
    node.set_input(slot, graph.add("Expand", [zero, sizes], before=node).output)
    return True


def _runs_once(loop: Node) -> bool:
    """Whether the first round surely comes."""
    for value in (loop.input(0), loop.input(1)):
        known = None if value is None else value.constant
        if value is not None and (known is None or known.size != 1 or int(known.ravel()[0]) < 1):
            return False
    return True


def _hides_rank(value: Value) -> bool:
    """Whether all that reads a value does the same for `[]` and `[1]`."""
    return all(
        isinstance(user, Node) and _is_indifferent(user, value, slot) for user, slot in value.uses
    )


def _is_indifferent(user: Node, value: Value, slot: int) -> bool:
    if user.op in ("If", "Loop"):
        return slot == (0 if user.op == "If" else 1)  # a condition
    if user.op == "Reshape":
        return slot == 0 and user.required(1).is_constant
    if not lookup(user.op).elementwise:
        return False
    others = [each for each in user.inputs if each is not None and each is not value]
    if any(_shape(each) not in (None, ()) for each in others):
        return True  # the other operand decides the rank
    return _hides_rank(user.output)


def _shape(value: Value) -> Shape | None:
    return value.type.shape if isinstance(value.type, TensorType) else None


def _reshaped(graph: Graph, value: Value, shape: Shape, before: Node | None = None) -> Value:
    wanted = graph.add_constant(np.array(shape, np.int64), "shape")
    return graph.add("Reshape", [value, wanted], before=before).output


def _give(graph: Graph, index: int, value: Value) -> None:
    """Let a nested graph give another value."""
    outputs = list(graph.outputs)
    outputs[index] = value
    graph.set_outputs(outputs)

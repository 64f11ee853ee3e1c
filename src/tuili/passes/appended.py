"""A list that a loop only appends to, and that is only joined afterwards, is a stacked output.

That is how exporters of scripted models write `outs.append(y)` in a loop and `torch.stack(outs)`
behind it. A sequence of tensors runs in Python, and the loop around it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents, symbols_in
from tuili.ops.infer import infer, infer_node
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.passes.making import Making


@dataclass(frozen=True, slots=True)
class _Appended:
    """One list of a loop: its place among the states, what is appended, who joins it."""

    loop: Node
    slot: int
    insert: Node
    joins: list[Node]

    @property
    def item(self) -> Value:
        return self.insert.required(1)


def stack_appended(graph: Graph) -> bool:
    """Let loops stack what they append, in a typed graph."""
    bound = {name for value in graph.inputs for name in _symbols(value)}
    changed = False
    while found := _first(graph, bound):
        _stack(found, infer(graph))
        infer(graph)
        changed = True
    return changed


def _symbols(value: Value) -> set[str]:
    type_ = value.type
    known = isinstance(type_, TensorType) and type_.shape is not None
    return set(symbols_in(value.shape)) if known else set()


def _first(graph: Graph, bound: set[str]) -> _Appended | None:
    loops = [node for node in graph.walk() if node.op == "Loop"]
    slots = ((loop, slot) for loop in loops for slot in range(2, len(loop.graphs()[0].inputs)))
    return next((found for loop, slot in slots if (found := _appended(loop, slot, bound))), None)


def _appended(loop: Node, slot: int, bound: set[str]) -> _Appended | None:
    body = loop.graphs()[0]
    start, inside = loop.required(slot).producer, body.inputs[slot]
    later, joined = body.outputs[slot - 1], loop.outputs[slot - 2]
    insert = later.producer
    if start is None or start.op != "SequenceEmpty" or insert is None or insert.graph is not body:
        return None
    if insert.op != "SequenceInsert" or insert.input(2) is not None:
        return None
    if inside.uses != [(insert, 0)] or later.uses != [(body, slot - 1)]:
        return None
    joins = joined.users
    if joined.is_output or any(join.op != "ConcatFromSequence" for join in joins):
        return None
    found = _Appended(loop, slot, insert, joins)
    return found if all(_is_even(found.item, join, bound) for join in joins) else None


def _is_even(item: Value, join: Node, bound: set[str]) -> bool:
    """Whether items have one shape wherever joining them is no error.

    They may differ only along the axis that they are joined along, if that is not a new one.
    """
    type_ = item.type
    if not isinstance(type_, TensorType) or type_.shape is None:
        return False
    if attr(join, "new_axis"):
        return True
    axis = int(attr(join, "axis"))
    inside = -len(type_.shape) <= axis < len(type_.shape)
    return inside and set(symbols_in([type_.shape[axis]])) <= bound


def _stack(found: _Appended, contents: Contents) -> None:
    loop, slot, body, item = found.loop, found.slot, found.loop.graphs()[0], found.item
    graph = loop.graph
    assert graph is not None, "a node that was found by walking has a graph"
    kept = [value for at, value in enumerate(body.outputs) if at != slot - 1]
    last = body.add("Identity", [item], types=[item.type], name=found.insert.name)
    body.set_outputs([*kept, last.output])
    body.remove(found.insert)
    body.inputs.pop(slot)
    attrs = dict(loop.attrs)
    loop.attrs.clear()  # the body moves
    states = [value for at, value in enumerate(loop.outputs) if at != slot - 2]
    made = graph.add(
        "Loop",
        [value for at, value in enumerate(loop.inputs) if at != slot],
        attrs,
        outputs=[value.name for value in (*states, loop.outputs[slot - 2])],
        name=loop.name,
        before=loop,
    )
    infer_node(made, contents)
    *others, stacked = made.outputs
    for join in found.joins:
        _join(join, stacked, contents)
    for old, new in zip(states, others, strict=True):
        give_way(graph, old, new)
    graph.remove(loop)


def _join(join: Node, stacked: Value, contents: Contents) -> None:
    """What ConcatFromSequence makes of the items, out of all of them along the first axis."""
    assert join.graph is not None, "a node that reads a value has a graph"
    m, rank = Making(join.graph, join, contents), len(stacked.shape) - 1
    new = bool(attr(join, "new_axis"))
    axis = int(attr(join, "axis"))
    axis += (rank + new) * (axis < 0)
    perm = (*range(1, axis + 1), 0, *range(axis + 1, rank + 1))
    turned = m("Transpose", stacked, perm=perm)
    if not new:
        # A `Dims` would keep the symbols of today, and sizes of data may yet become known.
        sizes = m("Shape", turned)
        before, merged, behind = m.all(
            "Split", sizes, np.array([axis, 2, rank - axis - 1]), outputs=3, axis=0
        )
        shape = m("Concat", before, m("ReduceProd", merged, keepdims=1), behind, axis=0)
        turned = m("Reshape", turned, shape, allowzero=1)
    m.replace(turned)

"""What a loop counts is the number of its round, and what it compares it with is its limit.

PyTorch's exporter writes loops without a limit: the body adds one to a counter and compares it
with the number of rounds. While a counter may be any number, `x[i : i + 1]` may be of any size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.bounds import has_element, is_nonnegative
from tuili.ops.contents import Contents
from tuili.passes.making import Making
from tuili.tensors import Dim, DType


class _Comparison(NamedTuple):
    beyond: int  # how far the last number that goes on lies beyond the one before the limit
    is_mirrored: bool  # the counter stands on the right


_COMPARISONS = {
    "Less": _Comparison(0, is_mirrored=False),
    "LessOrEqual": _Comparison(1, is_mirrored=False),
    "Greater": _Comparison(0, is_mirrored=True),
    "GreaterOrEqual": _Comparison(1, is_mirrored=True),
}
# No loop makes so many rounds; what is computed of them stays below the largest number.
_MOST_STEP = 1 << 10
_MOST_SPAN = 1 << 61
_MOST_I32, _MOST_I64 = (1 << 31) - 1, (1 << 63) - 1
_SAME_NUMBER = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity"})


def count_rounds(graph: Graph, contents: Contents) -> bool:
    """Give loops their limits, and what they count its meaning, in a typed graph."""
    loops = [_Counted(node, contents) for node in graph.walk() if node.op == "Loop"]
    steps = [(loop.limit(), *loop.numbers(), loop.rows()) for loop in loops]
    return any(map(any, steps))


class _Counted:
    """One loop, and what is known of the numbers around it."""

    def __init__(self, loop: Node, contents: Contents) -> None:
        self.loop = loop
        self.body = loop.graphs()[0]
        self.number = self.body.inputs[0]  # of the round
        self.contents = contents

    def limit(self) -> bool:
        """Let one that ends where its counter meets a number have the number of rounds as limit."""
        found = self._compared()
        if found is None:
            return False
        slot, limit, beyond = found
        step, start = self._step(slot), self.loop.required(slot)
        if step is None or not self._counts_up(start, limit, step, beyond):
            return False
        m = self._before(self.loop)
        span = self._span(m, start, limit)
        rounds = m("Add", span, np.int64(beyond + step - 1))
        if step != 1:
            rounds = m("Div", m("Max", rounds, np.int64(0)), np.int64(step))
        rounds = m("Max", rounds, np.int64(1))  # the comparison comes after the first round
        most, first = self.loop.input(0), self.loop.input(1)
        if first is not None and self.contents.number(first) != 1:
            rounds = m("Mul", rounds, _wide(m, first))
        if most is not None:
            rounds = m("Min", rounds, _wide(m, most))
        self.loop.set_input(0, rounds)
        self.loop.set_input(1, None)
        true = self.body.add_constant(np.array(True), "going")
        self.body.set_outputs([true, *self.body.outputs[1:]])
        return True

    def _counts_up(self, start: Value, limit: Value, step: int, beyond: int) -> bool:
        """Whether the counter surely gets past its limit before it overflows."""
        if not 1 <= step <= _MOST_STEP:
            return False
        known = self.contents.number(limit)
        if start.dtype is DType.I64 or step + beyond == 1:
            return True
        return known is not None and known + beyond + step - 1 <= _MOST_I32

    def _span(self, m: Making, start: Value, limit: Value) -> Value:
        """The distance from start to limit; a cap keeps it exact where it could overflow."""
        first, last = _wide(m, start), _wide(m, limit)
        if not (self._is_small(start) and self._is_small(limit)):
            cap = m("Add", m("Min", first, np.int64(_MOST_I64 - _MOST_SPAN)), np.int64(_MOST_SPAN))
            last = m("Max", m("Min", last, cap), first)
        return m("Sub", last, first)

    def _is_small(self, value: Value) -> bool:
        """Whether a number is of i32, a size, or known to be far from the largest."""
        known = self.contents.dims(value)
        if value.dtype is DType.I32 or known is None:
            return value.dtype is DType.I32
        number = known[0]
        return abs(number) <= _MOST_SPAN if isinstance(number, int) else not has_element(number)

    def _compared(self) -> tuple[int, Value, int] | None:
        """(slot of the counter, limit, how far beyond) when a comparison decides what goes on."""
        body, node = self.body, self.body.outputs[0].producer
        if node is None or node.graph is not body or node.op not in _COMPARISONS:
            return None
        counter, limit = node.required(0), node.required(1)
        if _COMPARISONS[node.op].is_mirrored:
            counter, limit = limit, counter
        inside = {*body.inputs, *(value for each in body.nodes for value in each.outputs)}
        known = self.contents.number(limit)
        if known is not None and abs(known) > _MOST_SPAN:
            return None
        if known is not None:
            limit = self._graph.add_constant(np.array(known), "limit")
        elif limit in inside or not _is_number(limit):
            return None
        carried = body.outputs[1 : len(body.inputs) - 1]
        if counter not in carried:
            return None
        return carried.index(counter) + 2, limit, _COMPARISONS[node.op].beyond

    def _step(self, slot: int) -> int | None:
        """What each round adds to a state, when that is one number and always the same."""
        state, node = self.body.inputs[slot], self.body.outputs[slot - 1].producer
        if node is None or node.op != "Add" or node.graph is not self.body:
            return None
        others = [value for value in node.inputs if value is not None and value is not state]
        if len(others) != 1 or not _is_number(state) or state.type != node.output.type:
            return None
        return self.contents.number(others[0])

    def numbers(self) -> list[bool]:
        """Let counters be read off the number of the round, which is known to begin with 0."""
        first = self.loop.input(1)
        always = self.contents.number(self.body.outputs[0]) == 1
        if not always or (first is not None and self.contents.number(first) != 1):
            return []
        return [self._read_off(slot) for slot in range(2, len(self.loop.inputs))]

    def _read_off(self, slot: int) -> bool:
        state, start, step = self.body.inputs[slot], self.loop.required(slot), self._step(slot)
        if not step or start.type != state.type:
            return False
        if state.uses == [(self.body.outputs[slot - 1].producer, 0)]:
            return False  # nothing else reads it
        m, number = self._before(self.body.nodes[0]), self.number
        number.type = TensorType(DType.I64, ())
        if step != 1:
            number = m("Mul", number, np.int64(step))
        if state.dtype is not DType.I64:
            number = m("Cast", number, to=state.dtype)
        if state.shape:
            number = m("Reshape", number, np.array([1]))
        if self.contents.number(start) != 0:
            number = m("Add", number, start)
        self.body.replace_uses(state, number)
        return True

    def rows(self) -> bool:
        """Let slices that are surely one row of what they cut be that row."""
        limit = self.contents.dims(self.loop.input(0))
        cuts = [node for node in self.body.walk() if node.op == "Slice"]
        if limit is None:
            return False
        found = [(node, self._row_axis(node, limit[0])) for node in cuts]
        for node, axis in found:
            if axis is not None:
                m = self._before(node)
                m.replace(m("Gather", node.required(0), node.required(1), axis=axis))
        return any(axis is not None for _, axis in found)

    def _row_axis(self, node: Node, rounds: Dim) -> int | None:
        """The axis along which a slice is surely one row of what it cuts."""
        x, starts, ends, steps = (node.input(index) for index in (0, 1, 2, 4))
        axis = self._axis(node)
        if x is None or starts is None or ends is None or axis is None:
            return None
        if (steps is not None and self.contents.number(steps) != 1) or not _has_shape(starts, (1,)):
            return None
        first, behind = self._behind(starts), self._behind(ends)
        if first is None or behind is None or behind != first + 1 or first < 0:
            return None
        return axis if is_nonnegative(x.shape[axis] - (rounds - 1 + behind)) else None

    def _axis(self, node: Node) -> int | None:
        x, axes = node.required(0), node.input(3)
        axis = 0 if axes is None else self.contents.number(axes)
        known = isinstance(x.type, TensorType) and x.type.shape is not None
        return axis % len(x.shape) if known and axis is not None and x.shape else None

    def _behind(self, value: Value) -> int | None:
        """How far a value lies beyond the number of the round, when that is always the same."""
        if value is self.number:
            return 0
        node = value.producer
        if node is None or not _is_number(value):
            return None
        if node.op in _SAME_NUMBER:
            return self._behind(node.required(0))
        if node.op != "Add":
            return None
        left, right = node.required(0), node.required(1)
        if self.contents.number(left) is not None:
            left, right = right, left
        more, found = self.contents.number(right), self._behind(left)
        return None if more is None or found is None else found + more

    def _before(self, node: Node) -> Making:
        assert node.graph is not None, "a node that was found by walking has a graph"
        return Making(node.graph, node, self.contents)

    @property
    def _graph(self) -> Graph:
        assert self.loop.graph is not None, "a node that was found by walking has a graph"
        return self.loop.graph


def _has_shape(value: Value, shape: tuple[int, ...]) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape == shape


def _is_number(value: Value) -> bool:
    """Whether a value is one whole number."""
    known = _has_shape(value, ()) or _has_shape(value, (1,))
    return known and value.dtype in (DType.I64, DType.I32)


def _wide(m: Making, value: Value) -> Value:
    """A number as a scalar of i64."""
    wide = value if value.dtype is DType.I64 else m("Cast", value, to=DType.I64)
    return m("Reshape", wide, np.zeros(0, np.int64)) if value.shape else wide

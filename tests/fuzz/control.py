"""If and Loop whose bodies carry several types, read the graph around them and hold each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.part import Part
from tuili.ir import Graph, TensorType, Value
from tuili.tensors import DType

KINDS = (DType.F32, DType.I64, DType.I32, DType.BOOL, DType.U8, DType.F64, DType.I8)
# What keeps type and shape, for real numbers, whole ones and truths.
_REAL = ("Neg", "Abs", "Identity", "Relu", "Add", "Mul")
_WHOLE = ("Identity", "Add", "Sub", "Max")
_TRUTH = ("Not", "Identity", "And", "Or")
_BOTH = {"Add", "Mul", "Sub", "Max", "And", "Or"}


def _changed(p: Part, graph: Graph, x: Value, dtype: DType, other: Value | None = None) -> Value:
    """One or two nodes on x, which read `other`, or x twice."""
    choices = _TRUTH if dtype is DType.BOOL else _REAL if dtype.is_float else _WHOLE
    for _ in range(1 + p.below(2)):
        op = p.one(choices)
        second = x if other is None or p.chance(40) else other
        x = graph.add(op, [x, second] if op in _BOTH else [x]).output
    return x


def branch(p: Part) -> None:
    """Results of several types; a side may answer with a constant, or with what it was shown."""
    condition = p.pick((DType.BOOL,), lambda rank: rank == 0, fresh=60)
    seen = [p.pick((p.one(KINDS),)) for _ in range(1 + p.below(3))]
    sides: dict[str, Any] = {}
    for name in ("then_branch", "else_branch"):
        side = Graph(f"{p.prefix}{name}", outer=p.graph)
        side.set_outputs([_answer(p, side, value) for value in seen])
        sides[name] = side
    made = p.node("If", [condition], sides, outputs=len(seen))
    if p.chance(60) and p.dtype(made[0]) is DType.F32:
        p.node("Add", [made[0], seen[0]])


def _answer(p: Part, side: Graph, value: Value) -> Value:
    dtype, array = p.dtype(value), p.of(value)
    if p.chance(20):
        return side.add("Identity", [side.add_constant(np.zeros_like(array), "none")]).output
    if p.chance(20):
        return _nested(p, side, value)
    return _changed(p, side, value, dtype)


def _nested(p: Part, side: Graph, value: Value) -> Value:
    """An If within a side, on a truth of the side's own."""
    zero = side.add_constant(np.zeros((), np.float32), "zero")
    (real,) = side.add("Cast", [value], {"to": DType.F32}).outputs
    axes = side.add_constant(np.arange(p.of(value).ndim), "axes")
    (total,) = side.add("ReduceSum", [real, axes], {"keepdims": 0}).outputs
    (truth,) = side.add("Greater", [total, zero]).outputs
    inner: dict[str, Any] = {}
    for name in ("then_branch", "else_branch"):
        graph = Graph(f"{p.prefix}inner_{name}", outer=side)
        graph.set_outputs([_changed(p, graph, value, p.dtype(value))])
        inner[name] = graph
    return side.add("If", [truth], inner).output


def loop(p: Part) -> None:
    """Carries values of several types; some rounds end by the loop's own condition."""
    starts = [p.pick((p.one(KINDS),)) for _ in range(1 + p.below(3))]
    around = p.pick((DType.F32,))
    trips = p.given(np.array(p.below(4), np.int64), 40)
    body = Graph(f"{p.prefix}body", outer=p.graph)
    count = body.add_input("i", TensorType(DType.I64, ()))
    going = body.add_input("going", TensorType(DType.BOOL, ()))
    states = [
        body.add_input("state", TensorType(p.dtype(value), p.of(value).shape)) for value in starts
    ]
    results = [
        _changed(p, body, state, p.dtype(value), value)
        for state, value in zip(states, starts, strict=True)
    ]
    goes_on = body.add("Identity", [going]).output
    if p.chance(40):
        last = body.add_constant(np.array(p.below(3)), "last")
        goes_on = body.add("Less", [count, last]).output
    collected = [body.add(p.one(("Neg", "Abs")), [around]).output] if p.chance(40) else []
    if p.chance(30):
        collected.append(body.add("Cast", [count], {"to": p.one((DType.F32, DType.I32))}).output)
    body.set_outputs([goes_on, *results, *collected])
    begins = None if p.chance(60) else p.constant(np.array(bool(p.below(2))))
    outputs = len(results) + len(collected)
    p.node("Loop", [trips, begins, *starts], {"body": body}, outputs=outputs)


STEPS: dict[str, Callable[[Part], None]] = {
    "If of several types": branch, "Loop of several types": loop,
}  # fmt: skip

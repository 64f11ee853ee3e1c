"""Lists that scripted models append to in a loop and join behind it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tuili.importers.onnx import import_model
from tuili.ir import Graph, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.appended import stack_appended
from tuili.passes.dead import remove_dead

# Each round appends the running sum of x, N x 3; `behind` joins the list.
LOOP = """<ir_version: 8, opset_import: ["": 18]> net (float[N,3] x, int64 n) => (float[*] y{outputs})
{{
    go = Constant <value = bool {{1}}> ()
    first = Identity (x)
    empty = {empty} ()
    last, seen = Loop (n, go, x, empty) <body = round
        (int64 at, bool on, float[N,3] sum, seq(float[*]) before) => (bool still, float[N,3] next, seq(float[*]) after)
    {{
        still = Identity (on)
        next = Add (sum, x)
        {item}
        after = SequenceInsert ({inserted})
    }}>
    {behind}
}}"""  # noqa: E501
USUAL = {
    "empty": "SequenceEmpty <dtype = 1>", "item": "part = Mul (next, next)", "outputs": "",
    "inserted": "before, part", "behind": "y = ConcatFromSequence <axis = 0, new_axis = 1> (seen)",
}  # fmt: skip


def graph_of(**changes: str) -> Graph:
    text = LOOP.format(**(USUAL | changes)).replace("float[*]", "float[]")
    proto = onnx.parser.parse_model(text)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = import_model(proto)
    infer(graph)
    return graph


def feeds(rounds: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(rounds)}


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize(
    ("new", "axis"),
    [*((1, axis) for axis in range(-3, 3)), *((0, axis) for axis in range(-2, 2))],
)
def test_what_a_loop_appends_is_stacked(new: int, axis: int, rounds: int) -> None:
    join = f"y = ConcatFromSequence <axis = {axis}, new_axis = {new}> (seen)"
    graph = graph_of(behind=join)
    expected = run(graph, feeds(rounds))["y"]
    assert stack_appended(graph)
    remove_dead(graph)
    verify(graph)
    infer(graph)
    assert not {node.op for node in graph.walk() if "Sequence" in node.op}
    assert np.array_equal(run(graph, feeds(rounds))["y"], expected)


def test_an_item_that_is_a_state_too_is_stacked() -> None:
    graph = graph_of(inserted="before, next", item="")
    expected = run(graph, feeds(3))["y"]
    assert stack_appended(graph)
    verify(graph)
    assert np.array_equal(run(graph, feeds(3))["y"], expected)


def test_two_joins_of_one_list_are_both_served() -> None:
    twice = """a = ConcatFromSequence <axis = 0, new_axis = 1> (seen)
        b = ConcatFromSequence <axis = 1> (seen)
        s = ReduceSum <keepdims = 0> (b)
        y = Add (a, s)"""
    graph = graph_of(behind=twice)
    expected = run(graph, feeds(3))["y"]
    assert stack_appended(graph)
    np.testing.assert_array_equal(run(graph, feeds(3))["y"], expected)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"empty": "SequenceConstruct", "behind": USUAL["behind"]}, id="begun"),
        pytest.param(
            {"item": "part = Mul (next, next)\n where = Constant <value = int64 {0}> ()",
             "inserted": "before, part, where"}, id="inserted elsewhere",
        ),
        pytest.param(
            {"item": "zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> ()"
                     " end = Reshape (at, one) part = Slice (next, zero, end, zero)",
             "behind": "y = ConcatFromSequence <axis = 0> (seen)"}, id="items of many sizes",
        ),
        pytest.param(
            {"behind": f"{USUAL['behind']} count = SequenceLength (seen)",
             "outputs": ", int64 count"},
            id="counted",
        ),
    ],
)  # fmt: skip
def test_other_lists_stay(changes: dict[str, str]) -> None:
    if changes.get("empty") == "SequenceConstruct":
        changes = changes | {"empty": "SequenceConstruct (first)\n    never = SequenceEmpty"}
    graph = graph_of(**changes)
    assert not stack_appended(graph)

"""Loops as PaddlePaddle exports them: placeholders of another rank, `[]` for `[1]`."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tuili.importers.onnx import import_model
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.settle_ranks import settle_ranks

# Adds x to a sum, and stops at once or when the sum is large; `start` is what the sum begins as.
LOOP = """<ir_version: 8, opset_import: ["": 18]> net (float[N] x{inputs}) => (float[M] y)
{{
    rounds = Constant <value = int64 {{{rounds}}}> ()
    go = Constant <value = bool {{1}}> ()
    start = Constant <value = float {{2.0}}> ()
    stopped = Constant <value = bool {{0}}> ()
    y, z = Loop ({limit}, {condition}, start, stopped) <body = round
        (int64 at, bool on, float[] v, bool[] no) => (bool still, float[K] next, bool[K] off)
    {{
        next = Add ({reads}, x)
        total = ReduceMax <keepdims = 0> (next)
        most = Constant <value = float {{3.0}}> ()
        large = Less (most, total)
        off = If (large) <
            then_branch = yes () => (bool[P] a) {{ a = Constant <value = bool {{1}}> () }},
            else_branch = maybe () => (bool[P] b)
                {{ shape = Constant <value_ints = [1]> () b = Reshape (no, shape) }}>
        one = Constant <value = bool[1] {{1}}> ()
        kept = And (off, one)
        still = Not (kept)
    }}>
}}"""
USUAL = {"inputs": "", "rounds": 5, "limit": "rounds", "condition": "go", "reads": "x"}


def loop(**changes: object) -> Graph:
    graph = import_model(onnx.parser.parse_model(LOOP.format(**(USUAL | changes))))
    infer(graph)
    return graph


def rank_of_result(graph: Graph) -> int | None:
    kind = graph.outputs[0].type
    assert isinstance(kind, TensorType)
    return None if kind.shape is None else len(kind.shape)


def feeds(graph: Graph) -> dict[str, np.ndarray]:
    values = {"x": np.array([1, 4], np.float32), "n": np.array(3), "c": np.array(True)}
    return {value.name: values[value.name] for value in graph.inputs}


def test_a_placeholder_that_nobody_reads_begins_as_zeros() -> None:
    graph = loop()
    assert rank_of_result(graph) is None
    wanted = run(graph, feeds(graph))["y"]
    assert settle_ranks(graph)
    assert rank_of_result(graph) == 1
    np.testing.assert_array_equal(run(graph, feeds(graph))["y"], wanted)


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"inputs": ", int64 n", "limit": "n"},
        {"inputs": ", bool c", "condition": "c"},
        {"reads": "v"},
    ],
    ids=["no round", "perhaps no round", "perhaps no first round", "it is read"],
)
def test_what_begins_may_be_the_result_and_stays(changes: dict[str, object]) -> None:
    graph = loop(**changes)
    wanted = run(graph, feeds(graph))["y"]
    settle_ranks(graph)
    assert rank_of_result(graph) is None
    np.testing.assert_array_equal(run(graph, feeds(graph))["y"], wanted)


BRANCHES = """<ir_version: 8, opset_import: ["": 18]> net (bool c, float w) => (float[M] y)
{{
    v = If (c) <
        then_branch = yes () => (float[P] a) {{ a = Identity (w) }},
        else_branch = no () => (float[P] b)
            {{ shape = Constant <value_ints = [1]> () b = Reshape (w, shape) }}>
    one = Constant <value = float[1] {{1.0}}> ()
    u = Neg (v)
    {last}
}}"""


@pytest.mark.parametrize(
    ("last", "rank"),
    [("y = Add (u, one)", 1), ("y = Add (u, w)", None), ("y = Identity (u)", None)],
)
def test_of_two_ranks_one_is_taken_only_where_nobody_can_tell(last: str, rank: int | None) -> None:
    graph = import_model(onnx.parser.parse_model(BRANCHES.format(last=last)))
    infer(graph)
    for c in (True, False):
        given = {"c": np.array(c), "w": np.array(2, np.float32)}
        wanted = run(graph, given)["y"]
        settle_ranks(graph)
        branch = graph.nodes[0].output.type
        assert isinstance(branch, TensorType)
        assert (None if branch.shape is None else len(branch.shape)) == rank
        found = run(graph, given)["y"]
        assert (found.shape, found.tolist()) == (wanted.shape, wanted.tolist())

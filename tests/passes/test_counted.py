"""Loops that count rounds by a number of their own and compare it with a limit."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

import tuili
from tuili.errors import TuiliError
from tuili.importers.onnx import import_model
from tuili.ir import Graph, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.pipeline import optimise

# Each round sums a row of x and counts on; x has four rows, and a row behind them is empty.
LOOP = """<ir_version: 8, opset_import: ["": 18]>
net (float[4,3] x, {type} n, {type} start, bool on, int64 most) => (float[K] y, {type} last)
{{
    last, y = Loop ({most}, {on}, start) <body = round
        (int64 at, bool goes, {type} count) => (bool still, {type} next, float part)
    {{
        step = Constant <value = {type} {{{step}}}> ()
        next = Add (count, step)
        still = {compared}
        one = Constant <value_ints = [1]> ()
        wide = Cast <to = 7> (count)
        begin = Reshape (wide, one)
        end = Add (begin, one)
        axis = Constant <value_ints = [0]> ()
        row = Slice (x, begin, end, axis)
        part = ReduceSum <keepdims = 0> (row)
    }}>
}}"""
USUAL = {"type": "int64", "step": "1", "compared": "Less (next, n)", "most": "", "on": "on"}
SAME = ("Less (next, n)", "LessOrEqual (next, n)", "Greater (n, next)", "GreaterOrEqual (n, next)")


def model_of(**changes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(LOOP.format(**(USUAL | changes)))


def optimised(model: onnx.ModelProto) -> Graph:
    graph = import_model(model)
    optimise(graph, block=8, on_pass=lambda *_: None)
    verify(graph)
    infer(graph)
    return graph


def feeds(kind: str, n: int, start: int, *, on: bool, most: int) -> dict[str, np.ndarray]:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    own = {"n": np.array(n, kind), "start": np.array(start, kind)}
    return {"x": x, **own, "on": np.array(on), "most": np.array(most)}


def assert_as_onnxruntime(model: onnx.ModelProto, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    read = {each.name for each in session.get_inputs()}
    graph = optimised(model)
    for n, start, on, most in product((-2, 0, 1, 2, 5), (0, 1), (True, False), (0, 1, 3, 9)):
        given = feeds(kind, n, start, on=on, most=most)
        expected = session.run(["y", "last"], {k: v for k, v in given.items() if k in read})
        found = run(graph, given)
        for name, right in zip(("y", "last"), expected, strict=True):
            np.testing.assert_array_equal(found[name], right, err_msg=f"{name} of {given}")


def stays(graph: Graph) -> bool:
    """Whether the body still decides by itself when the loop ends."""
    (loop,) = [node for node in graph.walk() if node.op == "Loop"]
    return loop.graphs()[0].outputs[0].producer is not None


@pytest.mark.parametrize("most", ["", "most"])
@pytest.mark.parametrize("step", ["1", "2", "3"])
@pytest.mark.parametrize("compared", SAME)
def test_the_number_of_rounds_is_known_before_the_first(compared: str, step: str, most: str):
    model = model_of(compared=compared, step=step, most=most)
    assert not stays(optimised(model))
    assert_as_onnxruntime(model, "int64")


@pytest.mark.parametrize("on", ["", "on"])
def test_numbers_of_32_bits_count_as_well(on: str) -> None:
    model = model_of(type="int32", on=on)
    assert not stays(optimised(model))
    assert_as_onnxruntime(model, "int32")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"step": "-1", "compared": "Greater (next, n)"}, id="counts down"),
        pytest.param({"step": "0", "most": "most", "on": ""}, id="stands still"),
        pytest.param({"compared": "Less (count, n)"}, id="compares the number before"),
        pytest.param({"compared": "And (goes, on)", "most": "most"}, id="does not compare"),
    ],
)
def test_other_loops_decide_for_themselves(changes: dict[str, str]) -> None:
    model = model_of(**changes)
    assert stays(optimised(model))
    if changes.get("step") != "-1":
        assert_as_onnxruntime(model, "int64")


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param("limit = Sub (n, at)", id="another one in each round"),
        pytest.param(
            f"limit = Constant <value = int64 {{{2**63 - 1}}}> ()", id="the largest number"
        ),
    ],
)
def test_a_limit_that_cannot_be_computed_before_stays(limit: str) -> None:
    text = LOOP.format(**(USUAL | {"compared": "LessOrEqual (next, limit)", "most": "most"}))
    model = onnx.parser.parse_model(text.replace("still =", f"{limit} still ="))
    assert stays(optimised(model))
    assert_as_onnxruntime(model, "int64")


# As PyTorch's exporter writes a bag of embeddings: parts that grow, joined behind the loop.
JOINED = """<ir_version: 8, opset_import: ["": 18]> net (float[4,3] x, int64 n) => (float[A,B] y)
{{
    empty = SequenceEmpty <dtype = 1> ()
    go = Constant <value = bool {{1}}> ()
    seen = Loop (n, go, empty) <body = round
        (int64 at, bool goes, seq(float[]) before) => (bool still, seq(float[]) after)
    {{
        still = Identity (goes)
        one = Constant <value_ints = [1]> ()
        zero = Constant <value_ints = [0]> ()
        begin = Reshape (at, one)
        end = Add (begin, one)
        axis = Constant <value_ints = [{axis}]> ()
        part = Slice (x, {begin}, end, axis)
        after = SequenceInsert (before, part)
    }}>
    y = ConcatFromSequence <axis = 0> (seen)
}}"""


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUILI_CFLAGS", "-O1")


def compiled(model: onnx.ModelProto, folder: Path) -> tuili.Model:
    onnx.save(model, folder / "m.onnx")
    return tuili.load(tuili.compile(folder / "m.onnx", folder / "m.tuili").path, threads=1)


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("changes", [{}, {"step": "2", "most": "most"}, {"type": "int32"}], ids=str)
def test_native_loops_end_where_onnxruntime_ends(changes: dict[str, str], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    proto = model_of(**changes)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    read = {each.name for each in session.get_inputs()}
    model = compiled(proto, tmp_path)
    for n, on, most in product((-1, 1, 3, 6), (True, False), (0, 2, 9)):
        given = feeds(changes.get("type", "int64"), n, 0, on=on, most=most)
        given = {name: array for name, array in given.items() if name in read}
        found = model.run(given)
        for name, right in zip(("y", "last"), session.run(["y", "last"], given), strict=True):
            np.testing.assert_array_equal(found[name], right)


@pytest.mark.usefixtures("quick_compiler")
def test_parts_of_one_size_are_joined(tmp_path: Path) -> None:
    model = compiled(onnx.parser.parse_model(JOINED.format(axis=0, begin="begin")), tmp_path)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    for n in (1, 3):
        np.testing.assert_array_equal(model.run({"x": x, "n": np.array(n)})["y"], x[:n])


@pytest.mark.usefixtures("quick_compiler")
def test_parts_that_differ_where_they_must_not_are_refused(tmp_path: Path) -> None:
    model = compiled(onnx.parser.parse_model(JOINED.format(axis=1, begin="zero")), tmp_path)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(model.run({"x": x, "n": np.array(1)})["y"], x[:, :1])
    with pytest.raises(TuiliError, match=r"differ|size|shape"):
        model.run({"x": x, "n": np.array(3)})

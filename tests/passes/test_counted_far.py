"""Loops whose limit is near the largest number run as often as in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tuili.importers.onnx import import_model
from tuili.ir import Graph, verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.counted import count_rounds
from tuili.passes.dead import remove_dead

LARGEST, LARGEST32 = 2**63 - 1, 2**31 - 1

# `seen` is the counter of each round, `last` what it is behind the loop.
LOOP = """<ir_version: 8, opset_import: ["": 18]> net
    ({t} start, {t} n, int64 most, bool go) => ({last} last, float[2] sum, {seen} seen)
{{
    {first}
    nothing = Constant <value = float[2] {{0.0, 0.0}}> ()
    last, sum, seen = Loop ({most}, {go}, {start}, nothing) <body = round
        (int64 at, bool on, {t} i, float[2] before) => (bool still, {t} j, float[2] after, {t} saw)
    {{
        step = Constant <value = {t} {{{step}}}> ()
        part = Constant <value = float[2] {{1.0, 2.0}}> ()
        j = {next}
        still = {still}
        after = Add (before, part)
        saw = Identity ({saw})
    }}>
}}"""
USUAL = {
    "t": "int64", "step": "1", "next": "Add (i, step)", "still": "Less (j, n)", "saw": "i",
    "most": "", "go": "", "start": "first", "value": "0", "first": "",
}  # fmt: skip


def model_of(**changes: str) -> onnx.ModelProto:
    words = USUAL | changes
    words["first"] = f"first = Constant <value = {words['t']} {{{words['value']}}}> ()"
    vector = "[" in words["t"]
    words["last"], words["seen"] = words["t"], words["t"] + ("[r]" if not vector else "")
    if vector:
        words["seen"] = words["t"].replace("[1]", "[r,1]")
    return onnx.parser.parse_model(LOOP.format(**words))


def counted(model: onnx.ModelProto) -> tuple[Graph, bool]:
    graph = import_model(model)
    changed = False
    while count_rounds(graph, infer(graph)):
        changed = True
        remove_dead(graph)
    infer(graph)
    verify(graph)
    return graph, changed


def assert_same(graph: Graph, model: onnx.ModelProto, feeds: dict[str, Any]) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    dtype = feeds["n"].dtype
    feeds = {"start": np.array(0, dtype), "most": np.array(9), "go": np.array(True)} | feeds
    names = {value.name for value in graph.inputs}
    expected = session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})
    found = run(graph, {name: feeds[name] for name in names})
    for own, other in zip(found.values(), expected, strict=True):
        np.testing.assert_array_equal(own, other, err_msg=str(feeds), strict=True)


@pytest.mark.parametrize(
    ("value", "n"), [(0, LARGEST), (-5, LARGEST - 1), (3, -LARGEST - 1), (LARGEST - 9, LARGEST - 6)]
)
@pytest.mark.parametrize("still", ["Less (j, n)", "LessOrEqual (j, n)"])
@pytest.mark.parametrize("step", ["1", "5"])
@pytest.mark.parametrize("first", ["first", "start"], ids=["known", "any"])
def test_a_limit_that_means_no_limit_does_not_overflow(
    first: str, step: str, still: str, value: int, n: int
) -> None:
    model = model_of(step=step, still=still, value=str(value), most="most", start=first)
    graph, changed = counted(model)
    assert changed
    assert_same(graph, model, {"start": np.array(value), "n": np.array(n), "most": np.array(4)})


# name: (what differs, first and n that show what would go wrong)
NOT_COUNTING: dict[str, tuple[dict[str, str], int, int]] = {
    "step of nothing": ({"step": "0"}, 0, 3),
    "downwards": ({"step": "-1"}, 0, 3),
    "other way round": ({"still": "Less (n, j)"}, 0, -9),
    "compared with what moves": ({"still": "Less (i, j)"}, 0, 3),
    "compared before the step": ({"still": "Less (i, n)"}, 0, 3),
    "step that is the counter": ({"next": "Add (i, i)", "value": "1"}, 0, 3),
    "step that is the round": ({"next": "Add (i, at)"}, 0, 3),
    "int32 that overflows": (
        {"t": "int32", "start": "start", "still": "LessOrEqual (j, n)"}, LARGEST32 - 1, LARGEST32,
    ),
    "int32 that steps over": (
        {"t": "int32", "start": "start", "step": "5"}, LARGEST32 - 6, LARGEST32 - 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_COUNTING)
def test_what_may_not_count_up_to_its_limit_keeps_its_condition(case: str) -> None:
    changes, start, n = NOT_COUNTING[case]
    model = model_of(**changes, most="most")
    dtype = np.int32 if changes.get("t") == "int32" else np.int64
    graph, changed = counted(model)
    assert not changed
    feeds = {"start": np.array(start, dtype), "n": np.array(n, dtype), "most": np.array(4)}
    with np.errstate(over="ignore"):
        assert_same(graph, model, feeds)

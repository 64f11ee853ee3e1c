"""What reads lists whose items are known by name reads the items."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.passes.support import feeds, load, run_on_random
from tuili.importers.onnx import import_model
from tuili.ir import verify
from tuili.ir.text import to_text
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.dead import remove_dead
from tuili.passes.known_lists import know_lists
from tuili.passes.pipeline import optimise

JOINED = """
graph main(%x: f32[2], %w: f32[2]) {
  %empty = SequenceEmpty() {dtype=f32}
  %one = SequenceInsert(%empty, %x)
  %two = SequenceInsert(%one, %w)
  %y = ConcatFromSequence(%two) {axis=0, new_axis=1}
  return %y
}
"""

KNOWN = """\
graph main(%x: f32[2], %w: f32[2]) {
  %axes = constant i64[1] [0]
  %unsqueeze: f32[1, 2] = Unsqueeze(%x, %axes)
  %unsqueeze_1: f32[1, 2] = Unsqueeze(%w, %axes)
  %y: f32[2, 2] = Concat(%unsqueeze, %unsqueeze_1) {axis=0}
  return %y
}
"""


def test_joined_items_are_joined_without_a_list() -> None:
    graph = load(JOINED)
    assert know_lists(graph, infer(graph))
    remove_dead(graph)
    infer(graph)
    assert to_text(graph) == KNOWN


CASES = {
    "an item of a list, from behind": """
        %at = constant i64[] [-2]
        %s = SequenceConstruct(%x, %w, %x)
        %y = SequenceAt(%s, %at)""",
    "items before others": """
        %at = constant i64[] [-1]
        %s = SequenceConstruct(%x, %x)
        %t = SequenceInsert(%s, %w, %at)
        %y = ConcatFromSequence(%t) {axis=1}""",
    "items taken out": """
        %at = constant i64[] [0]
        %s = SequenceConstruct(%x, %w, %x)
        %t = SequenceErase(%s, %at)
        %u = SequenceErase(%t)
        %y = ConcatFromSequence(%u) {axis=-1, new_axis=1}""",
    "how many": """
        %s = SequenceConstruct(%x, %w, %x)
        %y = SequenceLength(%s)""",
    "pieces of equal size": """
        %size = constant i64[] [2]
        %at = constant i64[] [1]
        %s = SplitToSequence(%x, %size) {axis=1}
        %a = SequenceAt(%s, %at)
        %n = SequenceLength(%s)
        %r = Cast(%n) {to=f32}
        %y = Mul(%a, %r)""",
    "pieces of given sizes": """
        %sizes = constant i64[2] [1, 2]
        %at = constant i64[] [1]
        %s = SplitToSequence(%x, %sizes) {axis=-1}
        %y = SequenceAt(%s, %at)""",
    "rows, without their axis": """
        %at = constant i64[] [-1]
        %s = SplitToSequence(%x) {axis=0, keepdims=0}
        %y = SequenceAt(%s, %at)""",
    "rows, without their axis, as PyTorch writes `unbind`": """
        %one = constant i64[] [1]
        %s = SplitToSequence(%x, %one) {axis=1, keepdims=0}
        %y = ConcatFromSequence(%s) {axis=1, new_axis=1}""",
    "an outer list in a branch": """
        %at = constant i64[] [1]
        %s = SequenceConstruct(%x, %w)
        %y = If(%f) {then_branch=graph t() {
          %a = SequenceAt(%s, %at)
          return %a
        }, else_branch=graph e() {
          %b = ConcatFromSequence(%s) {axis=0}
          return %b
        }}""",
}


@pytest.mark.parametrize("lines", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("flag", [0, 1])
def test_the_meaning_stays(lines: str, flag: int) -> None:
    text = f"graph main(%x: f32[2, 3], %w: f32[2, 3], %f: bool[]) {{ {lines}\n return %y }}"
    graph = load(text)
    given = feeds(graph) | {"f": np.array(bool(flag))}
    expected = run(graph, given)["y"]
    assert know_lists(graph, infer(graph))
    verify(graph)
    np.testing.assert_array_equal(run(graph, given)["y"], expected)
    optimise(graph, block=8, on_pass=lambda name, each: verify(each, after=name))
    assert not [node for node in graph.walk() if "Sequence" in node.op]
    np.testing.assert_array_equal(run(graph, given)["y"], expected)


@pytest.mark.parametrize("split", ["", "int64 s = {1}", "int64[3] s = {1, 1, 1}"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_an_axis_of_pieces_goes_as_in_onnxruntime(split: str, keepdims: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[2,3] x) => (float[] y)'
        f"<{split}{',' * bool(split)} int64 at = {{2}}> {{"
        f"q = SplitToSequence<axis = 1, keepdims = {keepdims}>(x{', s' * bool(split)})"
        "y = SequenceAt(q, at) }"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    graph = import_model(model)
    infer(graph)
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], expected)
    assert know_lists(graph, infer(graph))
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], expected)


def test_what_is_not_known_stays() -> None:
    graph = load("""
    graph main(%x: f32[N, 3], %at: i64[]) {
      %s = SplitToSequence(%x)
      %two = constant i64[] [2]
      %t = SequenceConstruct(%x, %x)
      %a = SequenceAt(%s, %two)
      %b = SequenceAt(%t, %at)
      %c = SequenceAt(%t, %two)
      return %a, %b, %c
    }""")
    assert not know_lists(graph, infer(graph))


# `torch.tensor_split` as TorchScript writes it, in pieces that are stacked again behind.
SPLIT = """
graph main(%x: f32[6, 4]) {
  %n = constant i64[] [2]
  %yes = constant bool[] [1]
  %ends = constant i64[4] [0, 1, 3, 6]
  %zero = constant i64[1] [0]
  %empty = SequenceEmpty() {dtype=f32}
  %pieces = Loop(%n, %yes, %empty) {body=graph b(%i: i64[], %on: bool[], %s: seq<f32[*]>) {
    %shape = constant i64[1] [1]
    %at = Reshape(%i, %shape)
    %begin = Gather(%ends, %at)
    %next = Add(%at, %shape)
    %end = Gather(%ends, %next)
    %piece = Slice(%x, %begin, %end, %zero)
    %t = SequenceInsert(%s, %piece)
    return %yes, %t
  }}
  %last = constant i64[] [1]
  %a = SequenceAt(%pieces, %last)
  %y = Exp(%a)
  return %y
}
"""


def test_a_list_that_a_short_loop_makes_is_known() -> None:
    graph = load(SPLIT)
    (expected,) = run_on_random(graph)
    optimise(graph, block=8, on_pass=lambda name, each: verify(each, after=name))
    assert [node.op for node in graph.nodes] == ["Slice", "Exp"]
    assert graph.outputs[0].shape == (2, 4)
    np.testing.assert_allclose(run_on_random(graph)[0], expected, rtol=1e-6)

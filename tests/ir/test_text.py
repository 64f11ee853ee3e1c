"""The text form: exact round trips, and errors that point at the place."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tuili.errors import ParseError
from tuili.ir import Graph, verify
from tuili.ir.text import parse, to_text
from tuili.tensors import DType, Sym

EXAMPLE = """\
graph main(%x: f32[N, 3, 224, 224], %s: seq<f32[*]>, %m: map<i64, optional<f32[]>>, %open) {
  metadata "author" = "a \\"quoted\\" name"
  %w = constant f32[64, 3, 7, 7] @w
  %c = constant i64[2] [1, -1]
  %"a b:c" = constant str[2] ["one", "t\\nwo"]
  %y: f32[N, 64, (H + 3) // 4, 112]@nchw16c = Conv(%x, %w, _) {pads=[3], strides=[2, 2]} "conv1"
  %z = If(%c) {else_branch=graph no() {
    %n = Neg(%y)
    return %n
  }, then_branch=graph "yes please"() {
    %p = com.microsoft::FastGelu(%y)
    return %p
  }}
  %d: i64[2] = Dims() {rank0=0, values=[dim(N + 1), 4]}
  %k = Cast(%y) {empty=[], nested=[[1, 2], [3.0]], text="x", to=f16, value=f32[1] [0.1]}
  return %z, %z
}
"""
WEIGHTS = {"w": np.arange(64 * 3 * 49, dtype=np.float32).reshape(64, 3, 7, 7)}


def test_text_in_is_text_out() -> None:
    graph = parse(EXAMPLE, WEIGHTS)
    verify(graph)
    weights: dict[str, np.ndarray] = {}
    assert to_text(graph, weights) == EXAMPLE
    assert weights["w"] is WEIGHTS["w"]


def test_the_example_of_the_reference_page_is_exact() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "graph.md"
    text = page.read_text().split("```text\n")[1].split("```")[0]
    assert to_text(parse(text, WEIGHTS)) == text


def test_reading_gives_the_parts_their_types() -> None:
    graph = parse(EXAMPLE, WEIGHTS)
    conv, branch, dims, cast = graph.nodes
    assert (conv.name, conv.output.layout, conv.input(2)) == ("conv1", "nchw16c", None)
    assert branch.graphs()[0].captured() == [conv.output]
    assert dims.attrs["values"] == (Sym("N") + 1, 4)
    assert cast.attrs["to"] is DType.F16
    assert graph.constants["a b:c"].constant.tolist() == ["one", "t\nwo"]
    assert graph.metadata == {"author": 'a "quoted" name'}


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_float_attributes_are_exact(number: float) -> None:
    graph = Graph()
    graph.add("Op", [], {"a": number}, outputs=["y"])
    found = parse(to_text(graph)).nodes[0].attrs["a"]
    assert isinstance(found, float)
    assert found == number or (math.isnan(found) and math.isnan(number))


KINDS = [kind.numpy for kind in DType if kind is not DType.STR]


@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_every_element_type_is_exact(dtype: np.dtype) -> None:
    rng = np.random.default_rng(0)
    array = np.array(rng.normal(size=(3, 5)) * 3).astype(dtype)
    graph = Graph()
    graph.add_constant(array, "c")
    again = parse(to_text(graph)).constants["c"].constant
    assert again.dtype == dtype
    assert again.tobytes() == array.tobytes()


@given(hnp.arrays(np.float32, (4,), elements=st.floats(width=32)))
def test_float32_elements_are_exact(array: np.ndarray) -> None:
    graph = Graph()
    graph.add_constant(array, "c")
    np.testing.assert_array_equal(parse(to_text(graph)).constants["c"].constant, array)


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan, np.inf, -np.inf, -0.0], np.float32),
        np.array([2**63, 2**64 - 1], np.uint64),
        np.array(-(2**63)),
        np.zeros((0, 3), np.float32),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array([1 + 2j, np.inf], np.complex64),
    ],
)
def test_awkward_arrays_are_exact(array: np.ndarray) -> None:
    graph = Graph()
    graph.add("Op", [], {"a": array}, outputs=["y"])
    again = parse(to_text(graph)).nodes[0].attrs["a"]
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


@given(st.text(max_size=12), st.text(min_size=1, max_size=12), st.text(max_size=12))
def test_any_names_are_kept(graph_name: str, value_name: str, text: str) -> None:
    graph = Graph(graph_name)
    x = graph.add_input(value_name)
    graph.add(text, [x], {text: text}, outputs=["out" + value_name], name=text)
    shown = to_text(graph)
    assert to_text(parse(shown)) == shown
    assert parse(shown).inputs[0].name == value_name


def test_a_nested_graph_may_use_a_name_from_around_that_it_does_not_read() -> None:
    text = """\
graph main(%x: f32[2]) {
  %y = Fused(%x) {body=graph body(%x: f32[]) {
    %y = Neg(%x)
    return %y
  }}
  return %y
}
"""
    graph = parse(text)
    verify(graph)
    assert to_text(graph) == text
    assert graph.nodes[0].graphs()[0].captured() == []


def test_sibling_graphs_may_use_one_name_twice() -> None:
    branch = "graph {}() {{\n    %k = constant f32[] [{}]\n    return %k\n  }}"
    branches = f"a={branch.format('a', 1.0)}, b={branch.format('b', 2.0)}"
    text = f"graph main(%c: bool[]) {{\n  %y = If(%c) {{{branches}}}\n  return %y\n}}\n"
    graph = parse(text)
    verify(graph)
    assert to_text(graph) == text
    assert graph.add_constant(np.ones(1), "k").name not in ("k", "k_1")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("%y = Relu(%z)\nreturn %y", "line 2, column 11: %z is not defined here or above"),
        ("%x = Relu(%x)\nreturn %x", "line 2, column 1: %x is defined twice"),
        ("%y = Relu(%x\nreturn %y", "line 3, column 1: expected ',', found 'return'"),
        ("%y: f33[2] = Relu(%x)", "line 2, column 5: expected an element type such as f32"),
        ("%y: f32[N ^ 2] = Relu(%x)", "unexpected character '\\^'"),
        ("%y: f32[N N] = Relu(%x)", "line 2, column 9: not a dim"),
        ("%y = constant f32[2] [1.0]", "f32\\[2\\] needs 2 elements, found 1"),
        ("%y = constant i8[1] [300]", "an element does not fit i8"),
        ("%y = constant i8[1] [1.5]", "'1.5' is not an element of type i8"),
        ("%y = constant f32[N] [1.0]", "a constant needs a known shape"),
        ("%y = constant f32[2] @gone", "the contents of @gone are not among the weights"),
        ("%y = constant f32[3] @w", "@w is declared f32\\[3\\] but its contents are f32\\[2\\]"),
        ('%y = Op(%x) {a="\\q"}', "not a valid string"),
        ("return %x }\n}", "expected the end of the text, found '}'"),
        ("%y = Op(%x) {a=dim(3)}", "expected a symbolic dim"),
        ("%y = Op(%x) {a=[[[" + "[" * 5000 + "}", "nested too deeply|expected"),
        ("", "found 'end of text'|expected an operator"),
    ],
)
def test_errors_point_at_the_place(body: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        parse("graph main(%x: f32[2]) {\n" + body, {"w": np.ones(2, np.float32)})
    assert caught.value.line >= 1
    assert caught.value.column >= 1

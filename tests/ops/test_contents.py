"""Known contents: the shape arithmetic of exporters becomes symbolic dims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuili.ir import Graph, TensorType, Value
from tuili.ops.bounds import bounds, compare, truncated_div
from tuili.ops.contents import Contents
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Dim, DType, Sym, evaluate, parse_dim, shape_text

N, S = Sym("N"), Sym("S")


def graph_of(*shape: Dim) -> tuple[Graph, Value]:
    graph = Graph()
    return graph, graph.add_input("x", TensorType(DType.F32, shape))


def const(graph: Graph, values: Any, dtype: Any = np.int64) -> Value:
    return graph.add_constant(np.array(values, dtype))


def shape_after(graph: Graph, value: Value) -> str:
    graph.set_outputs([value])
    infer(graph)
    return shape_text(value.shape)


def size_of(graph: Graph, x: Value, axis: int) -> Value:
    shape = graph.add("Shape", [x]).output
    return graph.add("Gather", [shape, const(graph, axis)]).output


def vector(graph: Graph, *parts: Value | int) -> Value:
    pieces = [
        const(graph, [part])
        if isinstance(part, int)
        else graph.add("Unsqueeze", [part, const(graph, [0])]).output
        for part in parts
    ]
    return graph.add("Concat", pieces, {"axis": 0}).output


def test_heads_are_split_by_a_computed_shape() -> None:
    graph, x = graph_of(N, S, 384)
    target = vector(graph, size_of(graph, x, 0), size_of(graph, x, 1), 12, 32)
    assert shape_after(graph, graph.add("Reshape", [x, target]).output) == "[N, S, 12, 32]"


def test_an_inferred_dim_divides_exactly() -> None:
    graph, x = graph_of(N, 3, S, S)
    product = graph.add("Mul", [size_of(graph, x, 2), size_of(graph, x, 3)]).output
    flat = graph.add("Reshape", [x, vector(graph, size_of(graph, x, 0), 3, product)]).output
    back = graph.add("Reshape", [flat, const(graph, [0, -1, 1])]).output
    assert shape_after(graph, back) == "[N, 3*S*S, 1]"


def test_the_dim_left_over_is_found_without_minus_one() -> None:
    graph, x = graph_of(N, S, 8)
    count = graph.add_input("count", TensorType(DType.I64, ()))
    target = vector(graph, count, 8)
    assert shape_after(graph, graph.add("Reshape", [x, target]).output) == "[N*S, 8]"


def test_no_elements_reshape_to_no_elements() -> None:
    graph = Graph("test")
    x = graph.add_constant(np.zeros((1, 0, 8), np.float32))
    for target, shape in (([-1], "[0]"), ([3, -1], "[3, 0]"), ([0, 0, 5], "[1, 0, 5]")):
        assert shape_after(graph, graph.add("Reshape", [x, const(graph, target)]).output) == shape


def test_expand_by_where_and_equal() -> None:
    graph, x = graph_of(1, 1, S)
    y = graph.add_input("y", TensorType(DType.F32, (N, S)))
    wanted = vector(graph, size_of(graph, y, 0), 1, size_of(graph, y, 1))
    ones = graph.add("ConstantOfShape", [const(graph, [3])], {"value": np.ones(1, np.int64)}).output
    minus = graph.add("Mul", [ones, const(graph, -1)]).output
    is_minus = graph.add("Equal", [wanted, minus]).output
    target = graph.add("Where", [is_minus, ones, wanted]).output
    assert shape_after(graph, graph.add("Expand", [x, target]).output) == "[N, 1, S]"


def test_same_padding_computed_from_the_input() -> None:
    graph, x = graph_of(N, 3, Sym("H"), 224)
    size = size_of(graph, x, 2)
    steps = graph.add("Div", [graph.add("Add", [size, const(graph, 1)]).output, const(graph, 2)])
    reach = graph.add(
        "Mul", [graph.add("Sub", [steps.output, const(graph, 1)]).output, const(graph, 2)]
    )
    need = graph.add("Sub", [graph.add("Add", [reach.output, const(graph, 3)]).output, size]).output
    zero = graph.add("Max", [need, const(graph, 0)]).output
    amounts = vector(graph, 0, 0, 0, 0, 0, 0, zero, 0)
    padded = graph.add("Pad", [x, amounts]).output
    weights = graph.add_constant(np.zeros((4, 3, 3, 3), np.float32))
    y = graph.add("Conv", [padded, weights], {"strides": (2, 1)}).output
    graph.set_outputs([y])
    infer(graph)
    found = run(graph, {"x": np.zeros((1, 3, 7, 224), np.float32)})
    assert evaluate(y.shape[2], {"H": 7}) == found[y.name].shape[2] == 4


def test_range_over_a_dim() -> None:
    graph, x = graph_of(N, S)
    start, step = const(graph, 0), const(graph, 1)
    assert (
        shape_after(graph, graph.add("Range", [start, size_of(graph, x, 1), step]).output) == "[S]"
    )


def test_a_table_is_cut_to_the_length_of_the_input() -> None:
    graph, x = graph_of(N, S)
    table = graph.add_constant(np.zeros((1, 512), np.float32))
    ends = vector(graph, size_of(graph, x, 1))
    cut = graph.add("Slice", [table, const(graph, [0]), ends, const(graph, [1])]).output
    assert shape_after(graph, graph.add("Add", [x, cut]).output) == "[N, S]"


def test_a_shape_goes_through_floats() -> None:
    graph, x = graph_of(N, 3, S, S)
    real = graph.add("Cast", [size_of(graph, x, 2)], {"to": DType.F32}).output
    doubled = graph.add("Floor", [graph.add("Mul", [real, const(graph, 2.0, np.float32)]).output])
    size = graph.add("Cast", [doubled.output], {"to": DType.I64}).output
    sizes = vector(graph, size_of(graph, x, 0), 3, size, size)
    assert (
        shape_after(graph, graph.add("Resize", [x, None, None, sizes]).output) == "[N, 3, 2*S, 2*S]"
    )


def test_data_dependent_sizes_get_symbols_that_stay() -> None:
    graph, x = graph_of(N, S)
    places = graph.add("NonZero", [x], outputs=["places"]).output
    graph.set_outputs([graph.add("Transpose", [places]).output])
    contents = infer(graph)
    assert shape_text(places.shape) == "[2, u0]"
    assert contents.sources == {"u0": "places#1"}
    infer(graph)
    assert shape_text(graph.outputs[0].shape) == "[u0, 2]"
    assert graph.metadata == {"symbol.u0": "places#1"}


def test_a_symbol_of_the_model_is_never_taken_again() -> None:
    graph, x = graph_of(Sym("u0"), S)
    assert shape_after(graph, graph.add("NonZero", [x]).output) == "[2, u1]"


def test_one_unknown_number_is_one_symbol() -> None:
    graph = Graph()
    count = graph.add_input("count", TensorType(DType.I64, ()))
    steps = graph.add("Range", [const(graph, 0), count, const(graph, 1)]).output
    row = graph.add("Unsqueeze", [count, const(graph, [0])]).output
    wide = graph.add("Expand", [const(graph, 1.0, np.float32), row]).output
    graph.set_outputs([steps, wide])
    infer(graph)
    assert shape_text(steps.shape) == "[max(0, v0)]"
    assert shape_text(wide.shape) == "[v0]"
    found = run(graph, {"count": np.array(4)})
    assert found[steps.name].shape == found[wide.name].shape == (4,)


def test_dims_is_its_own_contents() -> None:
    graph, x = graph_of(N, S)
    target = graph.add("Dims", [], {"values": (N * S, 1)}).output
    graph.set_outputs([graph.add("Reshape", [x, target]).output, target])
    contents = infer(graph)
    assert contents.dims(target) == (N * S, 1)
    found = run(graph, {"x": np.zeros((2, 3), np.float32)})
    assert found[target.name].tolist() == [6, 1]


def test_a_decided_branch_is_the_only_one_inferred() -> None:
    graph, x = graph_of(N, 4)
    then, other = Graph("then"), Graph("other")
    squeezed = then.add("Squeeze", [x, const(then, [1])])
    then.set_outputs(squeezed.outputs)
    other.set_outputs(other.add("Identity", [x], outputs=["same"]).outputs)
    is_one = graph.add("Equal", [size_of(graph, x, 1), const(graph, 1)]).output
    chosen = graph.add("If", [is_one], {"then_branch": then, "else_branch": other}).output
    assert shape_after(graph, chosen) == "[N, 4]"


def test_a_growing_loop_state_gets_a_symbol() -> None:
    graph, x = graph_of(1, S)
    body = Graph("body")
    body.add_input("i", TensorType(DType.I64, ()))
    flag = body.add_input("flag", TensorType(DType.BOOL, ()))
    state = body.add_input("state")
    grown = body.add("Concat", [state, x], {"axis": 0}).output
    total = body.add("ReduceSum", [grown], {"keepdims": 0}).output
    body.set_outputs([flag, grown, total])
    trips = const(graph, 3)
    node = graph.add("Loop", [trips, None, x], {"body": body}, outputs=["last", "sums"])
    graph.set_outputs(node.outputs)
    infer(graph)
    assert [str(value.type) for value in node.outputs] == ["f32[u0, S]", "f32[3]"]
    found = run(graph, {"x": np.ones((1, 2), np.float32)})
    assert found["last"].shape == (4, 2)
    assert found["sums"].tolist() == [4, 6, 8]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("N + 1", 1, np.inf),
        ("N - S", -np.inf, np.inf),
        ("max(N - 3, 2)", 2, np.inf),
        ("min(N, 7)", 0, 7),
        ("(N - 1) // 2", -1, np.inf),
        ("N % 4", 0, 3),
        ("v0", -np.inf, np.inf),
        ("2*N*S + 3", 3, np.inf),
    ],
)
def test_bounds(text: str, low: float, high: float) -> None:
    assert bounds(parse_dim(text)) == (low, high)


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [("N", "-1", 1), ("N", "N", 0), ("N", "1", None), ("N", "N + 1", -1), ("3", "5", -1)],
)
def test_compare(left: str, right: str, order: int | None) -> None:
    assert compare(parse_dim(left), parse_dim(right)) == order


@pytest.mark.parametrize("value", [-7, -6, -1, 0, 1, 5, 8])
@pytest.mark.parametrize("divisor", [1, 2, 3])
def test_integer_division_rounds_towards_zero(value: int, divisor: int) -> None:
    expected = int(value / divisor)
    assert truncated_div(value, divisor) == expected
    symbolic = truncated_div(Sym("v0"), divisor)
    assert evaluate(symbolic, {"v0": value}) == expected


def test_large_constants_have_no_contents() -> None:
    graph = Graph()
    assert Contents().get(graph.add_constant(np.zeros(10_000, np.int64))) is None


def test_symbols_of_values_that_are_gone_are_forgotten() -> None:
    graph, x = graph_of(N, S)
    places = graph.add("NonZero", [x])
    graph.set_outputs(places.outputs)
    infer(graph)
    assert graph.metadata
    graph.set_outputs([x])
    graph.remove(places)
    assert infer(graph).sources == {}
    assert graph.metadata == {}


def two_branches() -> tuple[Graph, Value]:
    """An If whose first branch squeezes an axis of 4: it can never run."""
    graph, x = graph_of(N, 4)
    flag = graph.add_input("flag", TensorType(DType.BOOL, ()))
    then, other = Graph("then"), Graph("other")
    then.set_outputs(then.add("Squeeze", [x, const(then, [1])]).outputs)
    other.set_outputs(other.add("Identity", [x], outputs=["same"]).outputs)
    chosen = graph.add("If", [flag], {"then_branch": then, "else_branch": other}).output
    graph.set_outputs([chosen])
    return graph, chosen


def test_a_branch_that_cannot_run_is_no_error_while_the_other_can() -> None:
    graph, chosen = two_branches()
    contents = infer(graph)
    assert shape_text(chosen.shape) == "[N, 4]"
    (reason,) = contents.impossible.values()
    assert "its size must be 1: 4 against 1" in reason


def test_a_half_of_a_size_is_rounded_as_the_model_says() -> None:
    graph, x = graph_of(N, 3, S, S)
    real = graph.add("Cast", [size_of(graph, x, 2)], {"to": DType.F32}).output
    half = graph.add("Mul", [real, const(graph, 0.5, np.float32)]).output
    up = graph.add("Ceil", [half]).output
    even = graph.add("Mul", [up, const(graph, 2.0, np.float32)]).output
    down = graph.add("Cast", [half], {"to": DType.I64}).output
    size = graph.add("Cast", [even], {"to": DType.I64}).output
    sizes = vector(graph, size_of(graph, x, 0), 3, size, down)
    after = shape_after(graph, graph.add("Resize", [x, None, None, sizes]).output)
    assert after == "[N, 3, 2*((S + 1) // 2), S // 2]"


def test_cutting_and_padding_gives_the_length_back() -> None:
    graph, x = graph_of(N, S)
    window = [const(graph, [value]) for value in (1, 2**31 - 1, 1)]
    cut = graph.add("Slice", [x, *window]).output
    padded = graph.add("Pad", [cut, const(graph, [0, 0, 0, 1])]).output
    assert shape_after(graph, graph.add("Add", [x, padded]).output) == "[N, S]"


def test_a_squeeze_that_depends_on_a_size_settles_the_rank() -> None:
    graph, x = graph_of(N, S)
    then, other = Graph("then"), Graph("other")
    then.set_outputs(then.add("Squeeze", [x, const(then, [1])]).outputs)
    other.set_outputs(other.add("Identity", [x], outputs=["same"]).outputs)
    is_one = graph.add("Equal", [size_of(graph, x, 1), const(graph, 1)]).output
    chosen = graph.add("If", [is_one], {"then_branch": then, "else_branch": other}).output
    graph.set_outputs([chosen])
    assert list(infer(graph).impossible) == [other]
    assert shape_text(chosen.shape) == "[N]"


def test_a_range_from_a_half_has_as_many_elements_as_fit() -> None:
    graph, x = graph_of(N, 3, S, 8)
    height = graph.add("Cast", [size_of(graph, x, 2)], {"to": DType.F32}).output
    half, one = (const(graph, number, np.float32) for number in (0.5, 1.0))
    steps = graph.add("Range", [half, height, one]).output
    graph.set_outputs([steps])
    infer(graph)
    for size in (1, 2, 7):
        given = {"x": np.zeros((1, 3, size, 8), np.float32)}
        (found,) = run(graph, given).values()
        assert evaluate(steps.shape[0], {"N": 1, "S": size}) == len(found)

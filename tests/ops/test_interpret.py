"""The interpreter: tuili's own operators, epilogues and nested graphs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tuili.errors import InvalidModel
from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run, run_node
from tuili.tensors import DType, Sym

RNG = np.random.default_rng(3)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def scaled_relu() -> Graph:
    """max(a * b + c, 0)."""
    body = Graph("body")
    a, b, c = (body.add_input(name) for name in "abc")
    product = body.add("Mul", [a, b]).output
    total = body.add("Add", [product, c]).output
    body.set_outputs(body.add("Relu", [total]).outputs)
    return body


def test_fused_broadcasts_its_inputs() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (Sym("N"), 4)))
    y = graph.add_input("y", TensorType(DType.F32, (4,)))
    z = graph.add_input("z", TensorType(DType.F32, ()))
    node = graph.add("Fused", [x, y, z], {"body": scaled_relu()})
    graph.set_outputs(node.outputs)
    infer(graph)
    assert str(node.output.type) == "f32[N, 4]"
    feeds = {"x": f32(3, 4), "y": f32(4), "z": np.array(0.5, np.float32)}
    expected = np.maximum(feeds["x"] * feeds["y"] + feeds["z"], 0)
    np.testing.assert_array_equal(run(graph, feeds)[node.output.name], expected)


@pytest.mark.parametrize("operands", [((5,), (1,)), ((2, 5, 6), (5,)), ((), (2, 5, 6))])
def test_a_convolution_applies_its_epilogue(operands: tuple[tuple[int, ...], ...]) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (2, 3, 8)))
    weights = graph.add_constant(f32(5, 3, 3))
    plain = graph.add("Conv", [x, weights])
    arrays = [f32(*shape) for shape in operands]
    extras = [graph.add_constant(array) for array in arrays]
    epilogue = {"epilogue": scaled_relu()}
    fused = graph.add("Conv", [x, weights, None, *extras], epilogue)
    graph.set_outputs([*plain.outputs, *fused.outputs])
    infer(graph)
    assert fused.output.type == plain.output.type
    found = run(graph, {"x": f32(2, 3, 8)})
    sides = [array.reshape(-1, 1) if array.ndim == 1 else array for array in arrays]
    expected = np.maximum(found[plain.output.name] * sides[0] + sides[1], 0)
    np.testing.assert_array_equal(found[fused.output.name], expected)


def test_a_product_has_a_bias_and_an_epilogue_that_changes_the_type() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (2, 3)))
    weights, bias = graph.add_constant(f32(3, 4)), graph.add_constant(f32(4))
    body = Graph("half")
    value = body.add_input("value")
    body.set_outputs(body.add("Cast", [value], {"to": DType.F16}).outputs)
    node = graph.add("MatMul", [x, weights, bias], {"epilogue": body})
    graph.set_outputs(node.outputs)
    infer(graph)
    assert str(node.output.type) == "f16[2, 4]"
    assert run(graph, {"x": f32(2, 3)})[node.output.name].dtype == np.float16


def test_reorder_changes_the_layout_only() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (1, 3, 4, 4)))
    blocked = graph.add("Reorder", [x], {"layout": "nchw16c"})
    pooled = graph.add("GlobalAveragePool", [blocked.output])
    pooled.output.type = TensorType(DType.F32, None, "nchw16c")
    graph.set_outputs(pooled.outputs)
    infer(graph)
    assert str(blocked.output.type) == "f32[1, 3, 4, 4]@nchw16c"
    assert str(pooled.output.type) == "f32[1, 3, 1, 1]@nchw16c"
    image = f32(1, 3, 4, 4)
    found = run(graph, {"x": image})[pooled.output.name]
    np.testing.assert_allclose(found, image.mean((2, 3), keepdims=True), rtol=1e-6)


def test_one_node_runs_by_itself() -> None:
    graph = Graph()
    node = graph.add("TopK", [], {"largest": 0}, outputs=["values", "places"])
    values, places = run_node(node, [np.array([3, 1, 2]), np.array([2])])
    assert values.tolist() == [1, 2]
    assert places.tolist() == [1, 2]


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_results_keep_the_element_type(kind: type) -> None:
    graph = Graph()
    for name in ("Sigmoid", "Softmax", "Erf", "Gelu", "ReduceMean", "Reciprocal"):
        (found,) = run_node(graph.add(name, []), [f32(2, 3).astype(kind)])
        assert found.dtype == kind, name


def test_a_loop_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUILI_LOOP_ROUNDS", "100")
    body = Graph("body")
    body.add_input("i", TensorType(DType.I64, ()))
    flag = body.add_input("flag", TensorType(DType.BOOL, ()))
    body.set_outputs([body.add("Identity", [flag]).output])
    graph = Graph()
    graph.add("Loop", [None, None], {"body": body}, outputs=[])
    with pytest.raises(InvalidModel, match="100 rounds without an end"):
        run(graph, {})


def test_a_scan_runs_backwards() -> None:
    body = Graph("body")
    total = body.add_input("total")
    item = body.add_input("item")
    grown = body.add("Add", [total, item]).output
    body.set_outputs([grown, body.add("Identity", [grown]).output])
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (Sym("T"),)))
    start = graph.add_constant(np.array(0, np.float32))
    attrs = {"body": body, "num_scan_inputs": 1, "scan_input_directions": (1,)}
    node = graph.add("Scan", [start, x], attrs, outputs=["last", "sums"])
    graph.set_outputs(node.outputs)
    infer(graph)
    assert str(node.outputs[1].type) == "f32[T]"
    found = run(graph, {"x": np.array([1, 2, 3], np.float32)})
    assert found["sums"].tolist() == [3, 5, 6]

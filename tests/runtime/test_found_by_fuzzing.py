"""Small graphs that once crashed, did not compile or answered wrongly: native beside NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import tuili
from tuili.host import HostSteps
from tuili.ir import Graph, TensorType, Value
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.runtime import load
from tuili.tensors import Array, DType, Sym

RNG = np.random.default_rng(0)


def given(graph: Graph, array: Array, dims: tuple[int | str, ...] | None = None) -> Value:
    """An input that the array is fed to; `dims` leaves some of its axes open."""
    shape = tuple(Sym(dim) if isinstance(dim, str) else dim for dim in dims or array.shape)
    return graph.add_input(f"x{len(graph.inputs)}", TensorType(DType.of(array.dtype), shape))


def gru_without_bias(graph: Graph) -> list[Array]:
    arrays = [RNG.normal(size=s).astype(np.float32) for s in ((5, 2, 4), (1, 3, 4), (1, 3, 1))]
    attrs = {"hidden_size": 1, "linear_before_reset": 1}
    inputs = [given(graph, array) for array in arrays]
    graph.set_outputs(graph.add("GRU", inputs, attrs, outputs=["y", "h"]).outputs)
    return arrays


def non_zero_of_a_scalar(graph: Graph) -> list[Array]:
    x = np.array(3, np.float32)
    graph.set_outputs(graph.add("NonZero", [given(graph, x)]).outputs)
    return [x]


def shrunk_integers(graph: Graph) -> list[Array]:
    x = np.arange(-3, 4, dtype=np.int8)
    attrs = {"bias": 0.5, "lambd": 0.5}
    graph.set_outputs(graph.add("Shrink", [given(graph, x)], attrs).outputs)
    return [x]


def reshape_to_a_given_shape(graph: Graph) -> list[Array]:
    x, shape = np.ones((2, 6), np.float32), np.array([3, 2, 2], np.int64)
    doubled = graph.add("Add", [given(graph, x, ("N", 6)), graph.inputs[0]]).output
    graph.set_outputs(graph.add("Reshape", [doubled, given(graph, shape)]).outputs)
    return [x, shape]


def sums_of_nothing(graph: Graph) -> list[Array]:
    """How many there are is known only by the run: none, and no memory is made for them."""
    x, axis = np.array(3, np.float32), graph.add_constant(np.array(1, np.int64))
    found = graph.add("NonZero", [given(graph, x)]).output
    graph.set_outputs(graph.add("CumSum", [found, axis], {"reverse": 1}).outputs)
    return [x]


CASES: tuple[Callable[[Graph], list[Array]], ...] = (
    gru_without_bias, non_zero_of_a_scalar, shrunk_integers, reshape_to_a_given_shape,
    sums_of_nothing,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_native_answers_are_those_of_numpy(tmp_path, case):
    graph = Graph()
    arrays = case(graph)
    feeds = {value.name: array for value, array in zip(graph.inputs, arrays, strict=True)}
    infer(graph)
    wanted = run(graph, feeds)
    artifact = tuili.compile(graph, tmp_path / "m.tuili")
    got = load(artifact.path, host=HostSteps).run(feeds)
    for name, array in wanted.items():
        assert got[name].shape == array.shape
        assert got[name].dtype == array.dtype
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_a_loop_in_python_knows_the_sizes_of_the_graph_around_it(tmp_path):
    """The carried value changes its rank; its new size has no name among the loop's inputs."""
    text = """<ir_version: 8, opset_import: ["": 18]> net (float[N] x) => (float[M] y)
    {
        xx = Concat <axis = 0> (x, x)
        rounds = Constant <value = int64 {2}> ()
        go = Constant <value = bool {1}> ()
        one = Constant <value = float {1.0}> ()
        y = Loop (rounds, go, one) <body = round (int64 at, bool on, float[] v)
            => (bool still, float[K] next)
        {
            still = Identity (on)
            shape = Shape (xx)
            wide = Expand (v, shape)
            next = Add (wide, xx)
        }>
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    model = tuili.load(tmp_path / "m.onnx")
    assert model.run({"x": np.ones(3, np.float32)})["y"].tolist() == [3.0] * 6


def test_a_loop_collects_rows_of_no_elements(tmp_path):
    """How many rows there will be is open, and yet the buffer needs no memory that grows."""
    text = """<ir_version: 8, opset_import: ["": 18]>
    net (float[3] x, int64 n) => (float[3] last, float[K, 0] twice)
    <float[0] none = {}> {
        last, seen = Loop (n, , x) <body = round (int64 at, bool on, float[3] v)
            => (bool still, float[3] next, float[0] row)
        {
            still = Identity (on)
            next = Neg (v)
            row = Neg (none)
        }>
        twice = Concat <axis = 0> (seen, seen)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    model = tuili.load(tmp_path / "m.onnx")
    for rounds in (0, 3):
        feeds = {"x": np.ones(3, np.float32), "n": np.array(rounds)}
        assert model.run(feeds)["twice"].shape == (2 * rounds, 0)

"""LSTMs with weights in codes become LSTMs with the weights that the codes stand for."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.widen_lstm import widen_lstm
from tuili.tensors import Array, DType

DIRECTIONS, WIDTH, HIDDEN = 2, 5, 3
OUTPUTS = 4 * HIDDEN
RNG = np.random.default_rng(1)
SCALES = {
    "one number": (),
    "one a direction": (DIRECTIONS,),
    "one an output": (DIRECTIONS, OUTPUTS),
}


def codes(width: int) -> Array:
    return RNG.integers(-90, 90, (DIRECTIONS, width, OUTPUTS)).astype(np.int8)


def coded_lstm(shape: tuple[int, ...], **attrs: int) -> tuple[Graph, Array]:
    graph = Graph("g")
    x = RNG.normal(size=(6, 2, WIDTH)).astype(np.float32)
    scale = np.full(shape, 0.01, np.float32) * RNG.uniform(0.8, 1.2, shape).astype(np.float32)
    zero = RNG.integers(-3, 3, shape).astype(np.int8)
    bias = RNG.normal(size=(DIRECTIONS, 2 * OUTPUTS)).astype(np.float32)
    known = [graph.add_constant(np.asarray(each)) for each in
             (codes(WIDTH), codes(HIDDEN), bias, scale, zero)]  # fmt: skip
    w, r, b, s, z = known
    inputs = [graph.add_input("x", TensorType(DType.F32, x.shape)), w, r, b,
              None, None, None, None, s, z, s, z]  # fmt: skip
    settings = {"direction": "bidirectional", "hidden_size": HIDDEN, **attrs}
    node = graph.add(
        "com.microsoft::DynamicQuantizeLSTM", inputs, settings, outputs=["y", "h", "c"]
    )
    graph.set_outputs(node.outputs)
    infer(graph)
    return graph, x


@pytest.mark.parametrize("kind", SCALES)
def test_answers_move_no_further_than_codes_round(kind: str) -> None:
    graph, x = coded_lstm(SCALES[kind])
    wanted = run(deepcopy(graph), {"x": x})
    assert widen_lstm(graph)
    infer(graph)
    assert [node.op for node in graph.nodes] == ["LSTM"]
    for name, found in run(graph, {"x": x}).items():
        np.testing.assert_allclose(found, wanted[name], atol=0.03)


def test_coupled_gates_stay_as_they_are() -> None:
    graph, _ = coded_lstm((), input_forget=1)
    assert not widen_lstm(graph)

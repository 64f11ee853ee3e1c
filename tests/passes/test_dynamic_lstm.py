"""DynamicQuantizeLSTM becomes a product of codes and the steps, and means what it meant."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from tuili.ir import Graph, TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.quantized.dynamic_lstm import spell_dynamic_lstms
from tuili.tensors import Array, DType

DIRECTIONS, WIDTH, HIDDEN = 2, 5, 3
OUTPUTS = 4 * HIDDEN
RNG = np.random.default_rng(1)
SCALES = {
    "one number": (),
    "one a direction": (DIRECTIONS,),
    "one an output": (DIRECTIONS, OUTPUTS),
}


def codes(width: int, dtype: Any) -> Array:
    low = np.iinfo(dtype).min
    return (RNG.integers(0, 255, (DIRECTIONS, width, OUTPUTS)) + low).astype(dtype)


def coded_lstm(shape: tuple[int, ...], dtype: Any, **attrs: int) -> tuple[Graph, dict[str, Array]]:
    graph = Graph("g")
    feeds = {
        "x": RNG.normal(size=(6, 2, WIDTH)).astype(np.float32),
        "n": np.array([6, 4], np.int32),
    }
    scale = np.full(shape, 0.01, np.float32) * RNG.uniform(0.8, 1.2, shape).astype(np.float32)
    zero = (RNG.integers(125, 131, shape) + np.iinfo(dtype).min).astype(dtype)
    bias = RNG.normal(size=(DIRECTIONS, 2 * OUTPUTS)).astype(np.float32)
    known = [graph.add_constant(np.asarray(each)) for each in
             (codes(WIDTH, dtype), codes(HIDDEN, dtype), bias, scale, zero)]  # fmt: skip
    w, r, b, s, z = known
    x, n = (graph.add_input(name, TensorType(DType.of(array.dtype), array.shape))
            for name, array in feeds.items())  # fmt: skip
    inputs = [x, w, r, b, n, None, None, None, s, z, s, z]
    settings = {"direction": "bidirectional", "hidden_size": HIDDEN, **attrs}
    node = graph.add(
        "com.microsoft::DynamicQuantizeLSTM", inputs, settings, outputs=["y", "h", "c"]
    )
    graph.set_outputs(node.outputs)
    infer(graph)
    return graph, feeds


@pytest.mark.parametrize("coupled", [0, 1])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("kind", SCALES)
def test_answers_are_those_of_the_operator(kind: str, dtype: Any, coupled: int) -> None:
    graph, feeds = coded_lstm(SCALES[kind], dtype, input_forget=coupled)
    wanted = run(deepcopy(graph), feeds)
    assert spell_dynamic_lstms(graph, infer(graph))
    infer(graph)
    assert {"QMatMul", "CodedLSTM"} <= {node.op for node in graph.nodes}
    for name, found in run(graph, feeds).items():
        np.testing.assert_allclose(found, wanted[name], atol=1e-5)


def test_weights_of_the_run_stay_as_they_are() -> None:
    graph, _ = coded_lstm((), np.int8)
    node = graph.nodes[-1]
    weights = node.required(1)
    node.set_input(1, graph.add_input("w", weights.tensor))
    assert not spell_dynamic_lstms(graph, infer(graph))

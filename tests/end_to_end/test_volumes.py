"""Networks over volumes, compiled: the answer is onnxruntime's, at any size that is left open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import tuili

SHAPES = {"fixed": [1, 3, 4, 12, 10], "open": ["n", 3, "d", "h", "w"]}


class _File:
    """An ONNX file with random weights, written node by node."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(5)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def add(self, op: str, *inputs: str | tuple[int, ...], **attrs: Any) -> str:
        given = [self._weight(each) if isinstance(each, tuple) else each for each in inputs]
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, given, [name], **attrs))
        return name

    def _weight(self, shape: tuple[int, ...]) -> str:
        name, scale = f"w{len(self._weights)}", np.sqrt(np.prod(shape[1:]))
        values = (self._rng.standard_normal(shape) / scale).astype(np.float32)
        self._weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    def save(self, path: Path, shape: list[Any], output: str) -> Path:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "volume", [x], [y], self._weights)
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return path


def _u_net(path: Path, shape: list[Any]) -> Path:
    """A residual block, down, a depthwise step, up again, and a head of two classes."""
    f = _File()
    first = f.add("Conv", "x", (16, 3, 3, 5, 5), (16,), pads=[1, 2, 2, 1, 2, 2])
    inner = f.add("Conv", f.add("Relu", first), (16, 16, 3, 3, 3), (16,), pads=[1] * 6)
    block = f.add("Relu", f.add("Add", inner, first))
    low = f.add("MaxPool", block, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    deep = f.add("Conv", low, (16, 1, 3, 3, 3), (16,), pads=[1] * 6, group=16)
    gate = f.add("Sigmoid", f.add("Conv", f.add("GlobalAveragePool", deep), (16, 16, 1, 1, 1)))
    up = f.add("ConvTranspose", f.add("Mul", deep, gate), (16, 8, 2, 2, 2), (8,), strides=[2] * 3)
    head = f.add("Conv", f.add("Relu", up), (2, 8, 1, 1, 1), (2,))
    return f.save(path, shape, f.add("Softmax", head, axis=1))


@pytest.mark.parametrize("kind", SHAPES)
def test_a_u_net_over_volumes(tmp_path: Path, kind: str):
    path = _u_net(tmp_path / "net.onnx", SHAPES[kind])
    model = tuili.load(path, threads=2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((1, 3, 4, 12, 10), (2, 3, 6, 8, 14))[: 1 if kind == "fixed" else 2]:
        x = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        (got,) = model.run({"x": x}).values()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_depthwise_windows_over_a_volume_that_leaves_the_cache(tmp_path: Path):
    file = _File()
    deep = file.add("Conv", "x", (32, 1, 3, 3, 3), (32,), pads=[1] * 6, group=32)
    path = file.save(tmp_path / "net.onnx", [1, 32, 8, 28, 28], file.add("Relu", deep))
    x = np.random.default_rng(1).standard_normal((1, 32, 8, 28, 28)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": x})
    (got,) = tuili.load(path, threads=2).run({"x": x}).values()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

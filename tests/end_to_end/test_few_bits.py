"""Files with weights of a few bits run natively, give onnxruntime's answers, and stay small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tuili
from tuili.tensors import Array

RNG = np.random.default_rng(5)
WIDTH, HIDDEN, ROWS = 256, 384, 7
BYTES = 4  # the accuracy level at which products are of bytes
KINDS = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16}


class _Layers:
    """The nodes and constants of a block of a language model: gate, up, down, with a residual."""

    def __init__(self, block: int, kind: str, level: int, *, zeros: bool) -> None:
        self.block = block
        self.level = level
        self.kind = kind
        self.zeros = zeros
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        self._project("x", "gate", WIDTH, HIDDEN, bias=True)
        self._project("x", "up", WIDTH, HIDDEN)
        self._node("Sigmoid", ["gate"], "gated")
        self._node("Mul", ["gate", "gated"], "silu")
        self._node("Mul", ["silu", "up"], "inner")
        self._project("inner", "down", HIDDEN, WIDTH)
        self._node("Add", ["down", "x"], "y")
        edges = [
            helper.make_tensor_value_info(name, KINDS[self.kind], ["rows", WIDTH]) for name in "xy"
        ]
        graph = helper.make_graph(self.nodes, "block", [edges[0]], [edges[1]], self.constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _node(self, op: str, inputs: list[str], output: str, **attrs: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], **attrs))

    def _project(self, x: str, y: str, depth: int, width: int, *, bias: bool = False) -> None:
        blocks, dtype = -(-depth // self.block), np.float16 if self.kind == "f16" else np.float32
        arrays: dict[str, Array] = {
            f"{y}_codes": _bytes(width, blocks, self.block // 2),
            f"{y}_scales": (RNG.uniform(0.5, 1.5, width * blocks) / 99).astype(dtype),
        }
        if self.zeros:
            arrays[f"{y}_zeros"] = _bytes(width * -(-blocks // 2))
        inputs = [x, *arrays]
        if bias:
            arrays[f"{y}_bias"] = RNG.standard_normal(width).astype(dtype)
            inputs += [""] * (5 - len(inputs)) + [f"{y}_bias"]
        self.constants += [numpy_helper.from_array(each, name) for name, each in arrays.items()]
        attrs = {"K": depth, "N": width, "bits": 4, "block_size": self.block}
        attrs["accuracy_level"] = self.level
        self._node("MatMulNBits", inputs, y, domain="com.microsoft", **attrs)


def _bytes(*shape: int) -> Array:
    return RNG.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("block", "zeros", "level"), [(32, False, 0), (32, True, 4), (128, False, 1), (128, False, 4)]
)
def test_a_block_of_a_language_model(
    tmp_path: Path, block: int, zeros: bool, level: int, kind: str
) -> None:
    path = tmp_path / "block.onnx"
    onnx.save(_Layers(block, kind, level, zeros=zeros).model(), path)
    artifact = tuili.compile(path, tmp_path / "block.tuili")
    assert artifact.manifest.host_steps == []
    assert _weight_bytes(artifact.path) < 3 * WIDTH * HIDDEN  # f32 weights take 12
    model = tuili.load(artifact.path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, ROWS):
        x = RNG.standard_normal((rows, WIDTH)).astype(model.inputs[0].dtype.numpy)
        expected = session.run(None, {"x": x})[0].astype(np.float32)
        tolerance = 1e-4 if kind == "f32" and level < BYTES else 0.05
        np.testing.assert_allclose(model.run({"x": x})["y"], expected, tolerance, tolerance)


def _weight_bytes(artifact: Path) -> int:
    return (artifact / "weights.bin").stat().st_size

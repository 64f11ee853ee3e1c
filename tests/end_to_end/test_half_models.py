"""Models of half-precision numbers run natively, as close to f32 as their edges allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tuili

DEPTH, HIDDEN = 24, 40
KINDS = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def _layers(kind: int) -> onnx.ModelProto:
    """Normalise, project, GELU by erf, project back, add: what an exported half block does."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        return helper.make_tensor(name, kind, shape, values.ravel().tolist())

    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("LayerNormalization", ["wide", "one"], ["normal"], axis=-1),
        helper.make_node("Cast", ["normal"], ["h"], to=kind),
        helper.make_node("MatMul", ["h", "w1"], ["p"]),
        helper.make_node("Gelu", ["p"], ["g"]),
        helper.make_node("MatMul", ["g", "w2"], ["q"]),
        helper.make_node("Add", ["q", "x"], ["y"]),
    ]
    ones = helper.make_tensor("one", TensorProto.FLOAT, [DEPTH], [1.0] * DEPTH)
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", kind, ["rows", DEPTH])],
        [helper.make_tensor_value_info("y", kind, ["rows", DEPTH])],
        [weight("w1", DEPTH, HIDDEN), weight("w2", HIDDEN, DEPTH), ones],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_half_model_is_native_and_close_to_f32(kind: str, tmp_path: Path):
    exact = tuili.load(_saved(tmp_path / "f32.onnx", _layers(TensorProto.FLOAT)))
    artifact = tuili.compile(_layers(KINDS[kind]), tmp_path / "half.tuili")
    assert artifact.manifest.host_steps == []
    half = tuili.load(artifact.path)
    x = np.random.default_rng(1).standard_normal((5, DEPTH)).astype(np.float32)
    narrow = x.astype(half.inputs[0].dtype.numpy)
    found = half.run({"x": narrow})["y"]
    assert found.dtype == narrow.dtype
    expected = exact.run({"x": narrow.astype(np.float32)})["y"]
    tolerance = 0.01 if kind == "f16" else 0.06
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=tolerance)


def _saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path

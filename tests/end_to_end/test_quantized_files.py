"""Files from onnxruntime's quantizer give onnxruntime's answers, but for one code of the output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnxruntime import quantization

import tuili
from tuili.compiler import compile as compile_model
from tuili.tensors import Array

RNG = np.random.default_rng(9)
SHAPE = (1, 3, 16, 16)
# name: (shape of the weights, inputs to a product)
WEIGHTS = {"w0": (16, 3, 3, 3), "w1": (16, 1, 3, 3), "w2": (16, 16, 1, 1), "w3": (10, 16)}


def _network(path: Path) -> None:
    """Convolutions of every kind, a sum, a pool and a Gemm."""
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], strides=[2, 2], **pads),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], group=16, **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "r0"], ["s"]),
        helper.make_node("MaxPool", ["s"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], transB=1),
    ]
    arrays = {
        name: RNG.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        for name, shape in WEIGHTS.items()
    }
    arrays["b0"] = RNG.normal(0, 0.1, 16)
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 10))
    graph = helper.make_graph(nodes, "small", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


class _Inputs:
    def __init__(self) -> None:
        self._left = 8

    def get_next(self) -> dict[str, Array] | None:
        self._left -= 1
        return {"x": RNG.normal(0, 1, SHAPE).astype(np.float32)} if self._left >= 0 else None


def _quantized(folder: Path, form: str) -> Path:
    library: Any = quantization
    source, target = folder / "small.onnx", folder / f"{form}.onnx"
    _network(source)
    if form == "dynamic":
        library.quantize_dynamic(source, target, op_types_to_quantize=["MatMul", "Gemm"])
    else:
        # onnxruntime runs QGemm of unsigned codes only.
        codes = library.QuantType.QInt8 if form == "QDQ" else library.QuantType.QUInt8
        library.quantize_static(
            source, target, _Inputs(), quant_format=library.QuantFormat[form], per_channel=True,
            activation_type=codes,
        )  # fmt: skip
    return target


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_file_gives_the_answers_of_onnxruntime(form: str, tmp_path: Path) -> None:
    path = _quantized(tmp_path, form)
    artifact = compile_model(path, tmp_path / "model.tuili")
    assert not artifact.manifest.host_steps
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # else sums saturate
    session = onnxruntime.InferenceSession(path, options)
    x = RNG.normal(0, 1, SHAPE).astype(np.float32)
    (want,) = session.run(None, {"x": x})
    (got,) = tuili.load(tmp_path / "model.tuili").run({"x": x}).values()
    assert np.abs(got - want).max() <= 2 * np.abs(want).max() / 127

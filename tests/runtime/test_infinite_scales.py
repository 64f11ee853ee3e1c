"""Codes of NaN: a calibration that saw a mask of -inf writes a scale of inf; inf / inf is NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import tuili
from tuili.importers.onnx import import_model
from tuili.ops.interpret import run

MASK = np.where(np.tri(5, 7, dtype=bool), 0, -np.inf).astype(np.float32)


def _coded(dtype: str) -> onnx.ModelProto:
    """The codes of an input, of the same numbers as a constant, which is folded, and both sums."""
    text = """<ir_version: 10, opset_import: ["": 21]>
    net (float[5, 7] x) => (c, k, y) <float s = {0}> {
        c = QuantizeLinear (x, s, z)
        k = QuantizeLinear (mask, s, z)
        a = DequantizeLinear (c, s, z)
        b = DequantizeLinear (k, s, z)
        y = Add (a, b)
    }"""
    proto = onnx.parser.parse_model(text)
    constants = {"z": np.array(3, dtype), "mask": MASK}
    scale = np.array(np.inf, np.float32)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(scale, "s"))
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for output, kind in zip(proto.graph.output, (dtype, dtype, "float32"), strict=True):
        output.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return proto


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_nan_becomes_the_lowest_code_everywhere(dtype: str, tmp_path: Path) -> None:
    proto = _coded(dtype)
    feeds = {"x": MASK}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    wanted = dict(zip(("c", "k", "y"), session.run(None, feeds), strict=True))
    meant = run(import_model(proto), feeds)
    found = tuili.load(tuili.compile(proto, tmp_path / "m.tuili").path).run(feeds)
    for name, array in wanted.items():
        np.testing.assert_array_equal(meant[name], array, err_msg=f"the meaning of {name}")
        np.testing.assert_array_equal(found[name], array, err_msg=f"native {name}")

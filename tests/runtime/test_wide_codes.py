"""Activations of 16-bit codes between convolutions, as quantizers for NPUs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tuili
from tuili.importers.onnx import import_model
from tuili.ops.interpret import run

BETWEEN = {
    "codes": "q = QuantizeLinear (a, s, z) b = DequantizeLinear (q, s, z)",
    "codes of an activation": """g = Sigmoid (a) q = QuantizeLinear (g, s, z)
        d = DequantizeLinear (q, s, z) m = Mul (a, d) p = QuantizeLinear (m, s, z)
        b = DequantizeLinear (p, s, z)""",
    "whole numbers": "i = Cast <to = 7> (a) j = Mul (i, i) b = Cast <to = 1> (j)",
    "doubles": "i = Cast <to = 11> (a) j = Mul (i, i) b = Cast <to = 1> (j)",
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_no_f32_between_convolutions_is_compiled(name: str, tmp_path: Path) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    net (float[1, 8, 6, 6] x) => (float[1, 8, 6, 6] y) <float s = {{0.0002}}> {{
        a = Conv <pads = [1, 1, 1, 1]> (x, v)
        {BETWEEN[name]}
        y = Conv <pads = [1, 1, 1, 1]> (b, w)
    }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    for weight in "vw":
        values = rng.uniform(-0.4, 0.4, (8, 8, 3, 3)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, weight))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(32768, np.uint16), "z"))
    x = rng.uniform(-1, 1, (1, 8, 6, 6)).astype(np.float32)
    found = tuili.load(tuili.compile(proto, tmp_path / "m.tuili").path).run({"x": x})["y"]
    wanted = run(import_model(proto), {"x": x})["y"]
    np.testing.assert_allclose(found, wanted, atol=0.5 if name == "whole numbers" else 1e-3)

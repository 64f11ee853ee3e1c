"""Numbers below the normal ones: sums of products have none, everything else keeps them."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import tuili

SMALL = np.float32(1e-30)  # times itself: below all normal numbers
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="other processors take no longer for such numbers"
)


def _product(text: str, weights: tuple[int, ...]) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')
    array = np.full(weights, 1e-10, np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return proto


PRODUCTS = {
    "MatMul": _product("net (float[3, 8] x) => (float[3, 8] y) { y = MatMul (x, w) }", (8, 8)),
    "Conv": _product(
        "net (float[1, 8, 5, 5] x) => (float[1, 16, 3, 3] y) { y = Conv (x, w) }", (16, 8, 3, 3)
    ),
    "depthwise": _product(
        "net (float[1, 8, 5, 5] x) => (float[1, 8, 3, 3] y) { y = Conv <group = 8> (x, w) }",
        (8, 1, 3, 3),
    ),
}


@pytest.mark.parametrize("proto", PRODUCTS.values(), ids=PRODUCTS)
def test_sums_of_products_are_normal_or_zero(proto: onnx.ModelProto) -> None:
    model = tuili.load(proto, threads=1)
    (x,) = model.inputs
    assert not model.run({"x": np.full(x.shape, SMALL)})["y"].any()


def test_exact_models_have_subnormal_sums(tmp_path: Path) -> None:
    proto = PRODUCTS["MatMul"]
    feeds = {"x": np.full((3, 8), SMALL)}
    (wanted,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    found = tuili.load(tuili.compile(proto, tmp_path / "m.tuili", exact=True).path).run(feeds)["y"]
    assert 0 < found.max() < np.finfo(np.float32).tiny
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_may_be_asked_for_a_logarithm_stays_as_it_is() -> None:
    proto = _product("net (float[8] x) => (float[8] y) { p = Mul (x, w) y = Log (p) }", (8,))
    found = tuili.load(proto).run({"x": np.full(8, SMALL)})["y"]
    np.testing.assert_allclose(found, np.log(1e-40), rtol=1e-4)


def test_the_thread_that_runs_a_model_computes_as_before_after_it() -> None:
    tuili.load(PRODUCTS["MatMul"], threads=1).run({"x": np.full((3, 8), SMALL)})
    assert (np.full(4, SMALL) * np.float32(1e-10)).all()

"""Fused operators of ONNX Runtime mean what that runtime computes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tuili.errors import InvalidModel
from tuili.importers.onnx import import_model
from tuili.ir import verify
from tuili.ops.infer import infer
from tuili.ops.interpret import run

RNG = np.random.default_rng(0)
SHAPES = {
    "BiasGelu": [(2, 3, 4), (4,)],
    "FastGelu": [(2, 3, 4), (4,)],
    "Gelu": [(2, 3, 4)],
    "QuickGelu": [(2, 3, 4)],
    "FusedMatMul": [(2, 3, 4), (2, 5, 4)],
    "FusedConv": [(1, 2, 5, 5), (3, 2, 3, 3), (3,)],
    "FusedConv ": [(1, 2, 5, 5), (3, 2, 3, 3), (3,), (1, 3, 3, 3)],
    "FusedGemm": [(3, 4), (4, 5), (5,)],
    "SkipLayerNormalization": [(2, 3, 4), (2, 3, 4), (4,), (4,), (4,)],
    "SkipSimplifiedLayerNormalization": [(2, 3, 4), (2, 3, 4), (4,)],
}
ATTRS = {
    "FusedMatMul": {"transB": 1, "alpha": 0.5},
    "FusedConv": {"activation": "Clip", "activation_params": [-0.5, 0.5]},
    "FusedConv ": {"activation": "Relu"},
    "FusedGemm": {"activation": "LeakyRelu", "activation_alpha": 0.2},
}


def model(op: str, attrs: dict, shapes: list[tuple[int, ...]], outputs: list[str]):
    names = [f"x{index}" for index in range(len(shapes))]
    node = helper.make_node(op, names, outputs, domain="com.microsoft", **attrs)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names[:2], shapes, strict=False)
    ]
    arrays = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    weights = [
        numpy_helper.from_array(array, name)
        for name, array in zip(names[2:], arrays[2:], strict=True)
    ]
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name
    ]
    graph = helper.make_graph([node], "g", inputs, results, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return proto, dict(zip(names[:2], arrays, strict=False))


@pytest.mark.parametrize("case", SHAPES)
def test_they_agree_with_onnxruntime(case: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    outputs = ["y", "", "", "s"] if case == "SkipLayerNormalization" else ["y"]
    proto, feeds = model(case.strip(), ATTRS.get(case, {}), SHAPES[case], outputs)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    expected = session.run(None, feeds)
    graph = import_model(proto)
    verify(graph)
    infer(graph)
    for found, right in zip(run(graph, feeds).values(), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)


def test_what_they_cannot_say_is_refused() -> None:
    shapes = SHAPES["FusedGemm"]
    proto, _ = model("FusedGemm", {"activation": "Magic"}, shapes, ["y"])
    with pytest.raises(InvalidModel, match="FusedGemm node 'y': activation 'Magic' is not known"):
        import_model(proto)

"""Operators on blocks of channels mean what onnxruntime computes, where blocks do not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.ops.beside_onnxruntime import by_onnxruntime, f32
from tuili.errors import UnsupportedOperator
from tuili.importers.onnx import import_model
from tuili.ops.interpret import run

CHANNELS = 32
WINDOW = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
CHAINS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "MaxPool": [("MaxPool", WINDOW)],
    "AveragePool": [("AveragePool", {**WINDOW, "count_include_pad": 1})],
    "Upsample": [("Upsample", {"scales": [1, 1, 2, 3], "mode": "nearest"})],
    "Upsample, linear": [("Upsample", {"scales": [1, 1, 2, 2], "mode": "linear",
                                       "coordinate_transformation_mode": "half_pixel"})],
    "GlobalAveragePool": [("GlobalAveragePool", {})],
    "GlobalMaxPool": [("MaxPool", WINDOW), ("GlobalMaxPool", {})],
}  # fmt: skip


def model_of(chain: list[tuple[str, dict[str, Any]]], last: int) -> onnx.ModelProto:
    ops = [
        ("ReorderInput", {"channels_last": last}),
        *chain,
        ("ReorderOutput", {"channels": CHANNELS, "channels_last": last}),
    ]
    nodes = [
        helper.make_node(op, [f"v{k}"], [f"v{k + 1}"], domain="com.microsoft.nchwc", **attrs)
        for k, (op, attrs) in enumerate(ops)
    ]
    shape = ["N", 9, 7, CHANNELS] if last else ["N", CHANNELS, 9, 7]
    x = helper.make_tensor_value_info("v0", onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(f"v{len(ops)}", onnx.TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("chain", CHAINS)
def test_they_agree_with_onnxruntime(chain: str, last: int) -> None:
    model = model_of(CHAINS[chain], last)
    x = f32(2, 9, 7, CHANNELS) if last else f32(2, CHANNELS, 9, 7)
    (expected,) = by_onnxruntime(model, {"v0": x})
    (found,) = run(import_model(model), {"v0": x}).values()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_in_blocks_of_unknown_length_are_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedOperator, match="ORT_ENABLE_EXTENDED") as caught:
        import_model(model_of([("Conv", {}), ("Conv", {})], 0))
    assert caught.value.operators == (("com.microsoft.nchwc::Conv", ["v2", "v3"]),)

"""com.microsoft operators beside onnxruntime, which defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from tests.ops.from_onnx import graph_of
from tuili.ir import TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import Array

RNG = np.random.default_rng(7)
# operator, inputs (None: left out), attributes, number of outputs, tolerance
Case = tuple[str, list[Any], dict[str, Any], int, float]


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def u8(*shape: int) -> Array:
    return RNG.integers(0, 255, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    """Weights of seven bits, so that the sum of two products fits 16 bits: 2 * 255 * 64 < 2**15.

    Without VNNI onnxruntime adds products of u8 and i8 in pairs, and clips the pair to 16 bits
    (its quantizer's `reduce_range` is for that); larger weights would compare us with its errors.
    """
    return RNG.integers(-64, 64, shape).astype(np.int8)


def i32(*items: int) -> Array:
    return np.array(items, np.int32)


def scale(value: float) -> Array:
    return np.array(value, np.float32)


def zero(value: int, kind: Any = np.uint8) -> Array:
    return np.array(value, kind)


def model_of(
    op: str, inputs: list[Any], attrs: dict[str, Any], outputs: int, weights: bool = False
) -> onnx.ModelProto:
    """One node; all inputs but the first are initializers where `weights` is set."""
    names = [f"i{k}" if item is not None else "" for k, item in enumerate(inputs)]
    made = [f"o{k}" for k in range(outputs)]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(item.dtype), item.shape)
        for name, item in zip(names, inputs, strict=True)
        if name and (name == "i0" or not weights)
    ]
    held = [
        onnx.numpy_helper.from_array(item, name)
        for name, item in zip(names, inputs, strict=True)
        if weights and name not in ("", "i0")
    ]
    node = helper.make_node(op, names, made, domain="com.microsoft", **attrs)
    results = [onnx.ValueInfoProto(name=name) for name in made]
    graph = helper.make_graph([node], "contrib", infos, results, held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, dict(feeds))


def check(case: Case, weights: bool = False, where: Mapping[int, Any] | None = None) -> None:
    """The outputs agree in type, shape and elements; `where` indexes those that mean something."""
    op, inputs, attrs, outputs, tolerance = case
    model = model_of(op, inputs, attrs, outputs, weights)
    feeds = {
        f"i{k}": item
        for k, item in enumerate(inputs)
        if item is not None and (k == 0 or not weights)
    }
    expected = by_onnxruntime(model, feeds)
    graph = graph_of(model)
    infer(graph)
    found = run(graph, feeds)
    for index, (value, wanted) in enumerate(zip(graph.outputs, expected, strict=True)):
        array = found[value.name]
        assert isinstance(value.type, TensorType)
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
        assert value.type.shape is None or len(value.type.shape) == array.ndim
        place = (where or {}).get(index, ...)
        np.testing.assert_allclose(
            array[place].astype(float), wanted[place].astype(float), rtol=tolerance, atol=tolerance
        )

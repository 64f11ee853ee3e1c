"""onnx's own node tests against the NumPy meanings and the shape rules."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test import loader

from tests.ops.from_onnx import array_of, graph_of, text
from tuili.ir import TensorType
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.tensors import DType

# Cases that cannot pass here, by what their name starts with, and why.
SKIPPED = {
    "test_bernoulli": "the numbers are random",
    "test_training_dropout": "the numbers are random",
    "test_dropout_random_old": "old form; the importer upgrades it",
    "test_dft_opset19": "old form; the importer upgrades it",
    "test_dft_axis_opset19": "old form; the importer upgrades it",
    "test_dft_inverse_opset19": "old form; the importer upgrades it",
    "test_dft_rfft_opset19": "old form; the importer upgrades it",
    "test_dft_irfft_opset19": "old form; the importer upgrades it",
    "test_loop11": "old form; the importer upgrades it",
    "test_scan_sum": "old form; the importer upgrades it",
    "test_image_decoder": "decoding JPEG differs between libraries",
}


@functools.cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in loader.load_model_tests(kind="node")}


def plain(item: Any) -> Any:
    """A test's input or output as our interpreter takes and gives it."""
    if isinstance(item, onnx.TensorProto):
        return array_of(item)
    if isinstance(item, list):
        return [plain(each) for each in item]
    if item is None or isinstance(item, dict):
        return item
    array = np.asarray(item)
    return text(array) if array.dtype.kind in "USO" else array


def assert_equal(found: Any, expected: Any, case: Any) -> None:
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other, case)
        return
    if expected is None or isinstance(expected, dict):
        assert found == expected
        return
    found = np.asarray(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    kind = DType.of(found.dtype)
    if kind.is_float and kind.bits <= 16:
        found, expected = found.astype(np.float32), expected.astype(np.float32)
        np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)
    elif found.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)
    else:
        np.testing.assert_array_equal(found, expected)


def assert_inferred(value: Any, found: Any) -> None:
    assert value.type is not None
    if not isinstance(value.type, TensorType) or found is None:
        return
    assert value.type.dtype is DType.of(np.asarray(found).dtype)
    if value.type.shape is not None:
        assert len(value.type.shape) == np.ndim(found)
        known = zip(value.type.shape, np.shape(found), strict=True)
        assert all(dim == size for dim, size in known if isinstance(dim, int))


@pytest.mark.parametrize("name", sorted(cases()))
def test_agrees_with_onnx(name: str) -> None:
    case = cases()[name]
    reason = next((why for start, why in SKIPPED.items() if name.startswith(start)), None)
    if reason or is_old(case.model):
        pytest.skip(reason or "old form inside a function body; the importer upgrades it")
    graph = graph_of(case.model)
    infer(graph)
    for inputs, outputs in case.data_sets:
        feeds = {v.name: plain(item) for v, item in zip(graph.inputs, inputs, strict=True)}
        found = run(graph, feeds)
        for value, expected in zip(graph.outputs, outputs, strict=True):
            assert_equal(found[value.name], plain(expected), case)
            assert_inferred(value, found[value.name])


def is_old(model: onnx.ModelProto) -> bool:
    """Whether reductions hold their axes as an attribute, as before opset 18."""
    return any(
        node.op_type.startswith("Reduce") and any(attr.name == "axes" for attr in node.attribute)
        for node in model.graph.node
    )

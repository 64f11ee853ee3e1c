"""The passes keep the meaning: the interpreter gives the same numbers before and after them."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import onnx.backend.test.loader
import pytest
from onnx import TensorProto, numpy_helper

from benchmarks.models import MODELS
from tuili.importers.onnx import import_model
from tuili.ir import Graph, verify
from tuili.ir.text import parse, to_text
from tuili.ops.infer import infer
from tuili.ops.interpret import run
from tuili.passes.pipeline import optimise
from tuili.tensors import Array

TOLERANCE = 1e-4  # of the largest magnitude of each output


def optimised(graph: Graph, block: int) -> Graph:
    infer(graph)
    optimise(graph, block=block, on_pass=lambda name, found: verify(found, after=name))
    infer(graph)
    verify(graph)
    return graph


def assert_agree(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert list(found) == list(expected)
    for name, right in expected.items():
        assert found[name].dtype == right.dtype, name
        assert found[name].shape == right.shape, name
        scale = float(np.abs(right.astype(np.float64)).max(initial=1e-30))
        worst = np.abs(found[name].astype(np.float64) - right).max(initial=0)
        assert worst <= TOLERANCE * scale, f"{name}: off by {worst / scale:.1e} of {scale:.3g}"


@pytest.mark.models
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in MODELS]
)
def test_real_models_mean_the_same_after_the_passes(name: str) -> None:
    path = MODELS[name].path()
    feeds = MODELS[name].inputs(MODELS[name].sizes[0])
    plain = import_model(path)
    infer(plain)
    after = optimised(import_model(path), 16)
    assert [str(v) for v in after.inputs] == [str(v) for v in plain.inputs]
    assert [str(v.type) for v in after.outputs] == [str(v.type) for v in plain.outputs]
    assert_agree(run(after, feeds), run(plain, feeds))


def standard_cases() -> list[Any]:
    """The standard's own cases: every eleventh, so that all operators with many cases are met."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the cases overflows small types on purpose
        cases = onnx.backend.test.loader.load_node_model_tests()[::11]
    unfit = ("scan_sum", "random", "bernoulli", "training_dropout")
    return [case for case in cases if not any(word in case.name for word in unfit)]


CASES = standard_cases()


def _array(item: Any) -> Any:
    return numpy_helper.to_array(item) if isinstance(item, TensorProto) else item


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, np.ndarray) and np.issubdtype(expected.dtype, np.floating):
        assert found.dtype == expected.dtype
        tolerance = 2e-3 if expected.dtype.itemsize < 4 else 1e-5
        np.testing.assert_allclose(found, expected, rtol=10 * tolerance, atol=tolerance)
    elif isinstance(expected, np.ndarray) and expected.dtype == ml_dtypes.bfloat16:
        # Computed in f32 and rounded once, where the plain graph rounds after every operator.
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(*(x.astype(np.float32) for x in (found, expected)), 2e-2, 2e-2)
    elif isinstance(expected, np.ndarray) and expected.dtype.kind == "V":  # small floats
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
    elif expected is not None:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_cases_of_the_standard_mean_the_same_after_the_passes(case) -> None:
    plain = import_model(case.model)
    infer(plain)
    names = [value.name for value in plain.inputs]
    feeds = dict(zip(names, map(_array, case.data_sets[0][0]), strict=True))
    expected = run(plain, feeds)
    after = optimised(import_model(case.model), 16)
    found = run(after, feeds)
    assert list(found) == list(expected)
    for name, right in expected.items():
        assert_equal(found[name], right)
    weights: dict[str, Array] = {}
    text = to_text(after, weights)
    assert to_text(parse(text, weights)) == text

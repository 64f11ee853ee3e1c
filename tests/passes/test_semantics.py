"""The passes keep the meaning: the interpreter gives the same numbers before and after them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models import MODELS
from tuili.importers.onnx import import_model
from tuili.ir import Graph, verify
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

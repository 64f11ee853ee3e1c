"""The real models: their files are there, and their inputs are what the files want."""

import numpy as np
import pytest

from benchmarks.models import MODELS

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", MODELS)
def test_inputs_fit_the_model_and_answers_are_not_constant(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = MODELS[name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.path(), options)
    assert len(model.sizes) == 3
    for size in model.sizes:
        answers = session.run(None, model.inputs(size))
        assert all(np.isfinite(answer).all() for answer in answers)
        # An output that is the same everywhere would agree with any engine.
        assert max(float(np.std(answer)) for answer in answers) > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_inputs_are_the_same_at_every_call(name):
    model = MODELS[name]
    one, two = (model.inputs(model.sizes[-1]) for _ in range(2))
    assert all(np.array_equal(one[key], two[key]) for key in one)

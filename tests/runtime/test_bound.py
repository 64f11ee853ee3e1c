"""A bound run reads and fills the same arrays every time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.native_models import positives, twice
from tuili.errors import InvalidArgument, Unsupported
from tuili.runtime import Model, load

pytestmark = pytest.mark.skipif(os.name != "posix", reason="native models are for POSIX")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    twice(tmp_path)
    return load(tmp_path / "twice.tuili")


def test_it_sees_what_is_written_to_its_inputs(model: Model) -> None:
    x, y = np.ones((2, 3), np.float32), np.empty((2, 3), np.float32)
    run = model.bind({"x": x}, {"y": y})
    for value in (1, 5):
        x[...] = value
        assert run()["y"] is y
        np.testing.assert_array_equal(y, np.full((2, 3), 2 * value))


def test_outputs_that_are_not_given_are_made_once(model: Model) -> None:
    run = model.bind({"x": np.ones((4, 3), np.float32)})
    assert run()["y"] is run()["y"] is run.outputs["y"]


def test_bound_runs_of_one_model_do_not_disturb_each_other(model: Model) -> None:
    arrays = [np.full((size, 3), size, np.float32) for size in (1, 2, 3)]
    runs = [model.bind({"x": x}) for x in arrays]
    model.close()
    for _ in range(2):
        for x, run in zip(arrays, runs, strict=True):
            np.testing.assert_array_equal(run()["y"], 2 * x)


def test_an_input_that_would_be_copied_is_refused(model: Model) -> None:
    x = np.ones((3, 2), np.float32).T
    with pytest.raises(InvalidArgument, match="input 'x' would be copied"):
        model.bind({"x": x})


def test_shapes_that_depend_on_data_cannot_be_bound(tmp_path: Path) -> None:
    positives(tmp_path)
    with pytest.raises(Unsupported, match="shapes depend on the data"):
        load(tmp_path / "positives.tuili").bind({"x": np.ones(3, np.float32)})

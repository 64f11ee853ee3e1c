"""A slice of the damaged models: only tuili's own errors come out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.importers.mutants import outcome


@pytest.mark.filterwarnings("ignore")
def test_damaged_models_are_read_or_refused_and_nothing_else() -> None:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [outcome(seed) for seed in range(160)]
    assert not [text for kind, text in found if kind == "foreign"]
    assert {"accepted", "refused"} == {kind for kind, _ in found}


# What sweeps over thousands of seeds have found, once.
FOUND = (344, 405, 440, 50096)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", FOUND)
def test_damage_that_no_check_foresaw_is_refused(seed: int) -> None:
    kind, text = outcome(seed)
    assert kind == "refused", text

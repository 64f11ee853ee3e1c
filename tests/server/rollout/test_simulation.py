"""A small slice of `make sim-canary`: good candidates stay, bad ones go."""

import pytest

from benchmarks.rollout_simulation import Scenario, fixed_thresholds, simulate


@pytest.mark.parametrize(
    ("scenario", "outcome"),
    [
        (Scenario("A/A", horizon_s=60), "promote"),
        (Scenario("slower", slower=1.3, horizon_s=31), "rollback"),
        (Scenario("failing", more_errors=0.01, horizon_s=31), "rollback"),
    ],
    ids=lambda each: getattr(each, "name", each),
)
def test_simulated_roll_outs_end_as_they_should(scenario, outcome):
    found = simulate(scenario, runs=20, rate=4000, seed=5)
    assert (found.outcome == outcome).mean() >= 0.95


def test_fixed_thresholds_are_fooled_by_chance():
    assert (fixed_thresholds(Scenario("A/A"), 100, 500, 1, 1).seconds > 0).mean() > 0.05

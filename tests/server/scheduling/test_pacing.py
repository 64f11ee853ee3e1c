"""Pace: the delay it finds, against every delay of a grid, in simulated time."""

import pytest

from tests.server.scheduling.simulation import Simulation
from tuili.server.scheduling.pacing import Pace
from tuili.server.scheduling.policy import BatchPolicy

GRID = [0.0, 300e-6, 1e-3, 3e-3]
# A run of n rows in seconds: mostly the call, half and half, mostly the rows.
MODELS = {
    "call": lambda rows: 2e-3 + 10e-6 * rows,
    "half": lambda rows: 500e-6 + 50e-6 * rows,
    "rows": lambda rows: 50e-6 + 1e-3 * rows,
}


def answered(policy, pace, model, clients, think_s=300e-6, seconds=2.0):
    """How many requests were answered in the second half, and their mean latency."""
    simulation = Simulation(policy, MODELS[model], pace=pace).closed_loop(clients, think_s)
    simulation.run(seconds / 2)
    before = len(simulation.latencies)
    found = simulation.run(seconds).latencies[before:]
    return len(found), sum(found) / len(found)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("clients", [8, 32])
def test_the_delay_found_is_as_good_as_the_best_of_a_grid(model, clients):
    best = max(
        answered(BatchPolicy(128, merge=True, max_delay_s=delay), None, model, clients)[0]
        for delay in GRID
    )
    adaptive, _ = answered(BatchPolicy(128, merge=True), Pace(), model, clients)
    assert adaptive >= 0.95 * best


@pytest.mark.parametrize("model", MODELS)
def test_a_single_client_never_waits(model):
    alone = answered(BatchPolicy(0), None, model, 1)
    assert answered(BatchPolicy(128, merge=True), Pace(), model, 1) == alone


def test_open_arrivals_far_below_capacity_are_not_held():
    runs = {}
    for name, pace in (("none", None), ("pace", Pace())):
        simulation = Simulation(BatchPolicy(128, merge=True), MODELS["half"], pace=pace)
        found = simulation.open_loop(200, 20.0).run(30.0).latencies
        runs[name] = sum(found) / len(found)
    assert runs["pace"] <= 1.05 * runs["none"]


def test_a_target_leaves_room_for_two_runs():
    pace = Pace(target_s=4.5e-3)
    Simulation(BatchPolicy(128, merge=True), MODELS["call"], pace=pace).closed_loop(32, 3e-4).run(8)
    assert pace.delay_s <= 0.5e-3

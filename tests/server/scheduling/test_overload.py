"""Overload in simulated time: goodput stays, and what is accepted is answered in time."""

import numpy as np
import pytest

from tests.server.scheduling.simulation import Simulation
from tuili.errors import Overloaded
from tuili.server.scheduling.admission import Admission, Expectation, Limits
from tuili.server.scheduling.policy import BatchPolicy

MODELS = {
    "alone": (BatchPolicy(0), lambda rows: 5e-3 * rows, 200.0),
    "batches": (BatchPolicy(16, merge=True), lambda rows: 4e-3 + 1e-3 * rows, 800.0),
}


class Guarded(Simulation):
    """A simulation whose requests pass an admission first."""

    def __init__(self, policy, run_s, max_wait_s, **more):
        super().__init__(policy, run_s, **more)
        self.expectation = Expectation(more.get("instances", 1))
        self.admission = Admission(Limits(max_wait_s=max_wait_s), self.expectation)
        self.under_way = 0

    def arrive(self, client):
        try:
            self.admission.admit("", self.under_way, 0.0, self.now)
        except Overloaded:
            self.refused += 1
            return
        self.under_way += 1
        super().arrive(client)

    def finish(self, batch, run_s):
        self.under_way -= len(batch)
        self.expectation.ran(len(batch), run_s)
        for _ in batch:
            self.admission.ended("")
        super().finish(batch, run_s)


def at_load(model, factor, max_wait_s, **more):
    """Goodput per second and p99 of the accepted."""
    policy, run_s, capacity = MODELS[model]
    simulation = Guarded(policy, run_s, max_wait_s, **more).open_loop(capacity * factor, 10.0)
    simulation.run(10.0)
    return len(simulation.latencies) / 10.0, float(np.percentile(simulation.latencies, 99))


@pytest.mark.parametrize("model", MODELS)
def test_goodput_and_the_tail_hold_at_five_times_the_capacity(model):
    levels = {factor: at_load(model, factor, 0.05) for factor in (0.5, 0.9, 1.0, 2.0, 3.0, 5.0)}
    best = max(goodput for goodput, _ in levels.values())
    assert levels[5.0][0] >= 0.9 * best
    for factor in (1.0, 2.0, 3.0, 5.0):
        assert levels[factor][1] <= 2 * levels[0.9][1]
        assert levels[factor][1] <= 2 * 0.05


def test_without_a_bound_the_tail_grows_without_one():
    assert at_load("alone", 3.0, 0.0)[1] > 1.0

"""Turns of subjects: alternating, the best of each call, within a budget; the clock is a fake."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tuili.bench.tune.rounds import LEAST_ROUNDS, MOST_ROUNDS, TURN_S, best_times
from tuili.tensors import Array


class Machine:
    """A clock, and subjects that take its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self.told: list[float] = []

    def subject(self, name: str, seconds: float, calls: Sequence[Sequence[int]]):
        turns = iter([*calls, *([calls[-1]] * 10_000)])

        def run() -> Array:
            self.ran.append(name)
            self.now += seconds
            return np.array(next(turns))

        return run

    def best(self, *subjects, budget_s: float):
        return best_times(subjects, budget_s, self.told.append, now=lambda: self.now)


def test_every_call_has_its_own_best() -> None:
    machine = Machine()
    noisy = machine.subject("a", 1.0, [[9, 9], [5, 8], [7, 4], [6, 6]])
    (best,) = machine.best(noisy, budget_s=1)
    assert best.tolist() == [5, 4]


def test_turns_alternate_and_every_other_round_goes_backwards() -> None:
    machine = Machine()
    machine.best(*(machine.subject(n, 1.0, [[1]]) for n in "ab"), budget_s=0)
    assert "".join(machine.ran) == "ab" + "aabb" + "bbaa" + "aabb"


@pytest.mark.parametrize(
    ("seconds", "budget_s", "rounds"),
    [(1.0, 0.0, LEAST_ROUNDS), (1.0, 40.0, 10), (TURN_S / 2, 1e9, MOST_ROUNDS)],
)
def test_rounds_go_on_until_the_budget_is_spent(
    seconds: float, budget_s: float, rounds: int
) -> None:
    machine = Machine()
    machine.best(*(machine.subject(n, seconds, [[1]]) for n in "ab"), budget_s=budget_s)
    assert len(machine.told) == rounds
    assert machine.told == sorted(machine.told)
    assert machine.told[-1] == 1


def test_short_runs_share_a_turn() -> None:
    machine = Machine()
    machine.best(machine.subject("a", TURN_S / 8, [[1]]), budget_s=0)
    assert len(machine.ran) == 1 + LEAST_ROUNDS * 8

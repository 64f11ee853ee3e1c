"""Fair times on a machine that others use too: short turns in rounds, and the best of each call.

Whatever else the machine does meets all subjects alike, because their turns alternate and every
other round goes backwards; the least time of a call is the one that nothing disturbed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from tuili.tensors import Array

Subject: TypeAlias = "Callable[[], Array]"  # runs once; returns the nanoseconds of each call
Now: TypeAlias = "Callable[[], float]"

TURN_S: Final = 0.005
LEAST_RUNS: Final = 2  # in a turn: the first finds the caches full of another subject's weights
LEAST_ROUNDS: Final = 3
MOST_ROUNDS: Final = 100


def best_times(
    subjects: Sequence[Subject],
    budget_s: float,
    on_round: Callable[[float], None] = lambda done: None,
    now: Now = time.perf_counter,
) -> list[Array]:
    """For each subject the least nanoseconds of each of its calls.

    Rounds go on until the budget is spent or there were enough; there are always a few, and each is
    told how much of the whole is done, from 0 to 1.
    """
    best = [subject() for subject in subjects]
    start = now()
    for rounds in range(1, MOST_ROUNDS + 1):
        order = range(len(subjects))
        for place in order if rounds % 2 else reversed(order):
            best[place] = np.minimum(best[place], _turn(subjects[place], now))
        spent = (now() - start) / budget_s if budget_s > 0 else 1.0
        on_round(min(1.0, max(rounds / MOST_ROUNDS, min(spent, rounds / LEAST_ROUNDS))))
        if rounds >= LEAST_ROUNDS and spent >= 1:
            break
    return best


def _turn(subject: Subject, now: Now) -> Array:
    """The best of some runs in a row."""
    end = now() + TURN_S
    best, runs = subject(), 1
    while runs < LEAST_RUNS or now() < end:
        best = np.minimum(best, subject())
        runs += 1
    return best

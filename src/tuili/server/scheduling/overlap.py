"""Overlap: how many runs of one model are under way at once, by what they take.

Theory of operation
- A run that is alone takes all cores, runs at once share them. Which does more depends on the
  model, the size of the batch and the machine: a run that scales over the cores is better alone, as
  a larger batch or an earlier one; one that does not, or cannot be joined with others, beside more.
- The time of a run divided by how many ran meanwhile is what it took of the machine; per element,
  that is the inverse of the throughput. It is kept for 1, 2, 4, ... runs at once and by size.
- With so much work here, each number of runs comes to batches of some size, whose cost is known.
  The number in use gives way to one that costs clearly less. Where it makes no difference it stays
  as it is, at one in the beginning: its runs are the shortest, and nobody is overtaken.
- The other numbers are tried in turn for a few runs while requests wait; less and less often while
  the verdict stands, so that trials do not make the 99th percentile.
- A short request behind a long run starts beside it all the same, where that saves it more time
  than it costs all those who run.
"""

from __future__ import annotations

from itertools import count
from math import ceil
from typing import Final

import msgspec

from tuili.server.scheduling.costs import Costs

_SHORT_S: Final = 1e-3  # runs at once wait for each other in Python, for about a short run's time
# More runs at once must cost so much less; fewer, only not more.
_BETTER: Final = 0.94
_CLEAR: Final = 0.8  # a difference that no noise makes
_TRIAL_RUNS: Final = 8  # at first; two of each of those at once at least
_MOST_TRIAL_RUNS: Final = 32
_REST: Final = 16  # runs between trials, at first
_MOST_REST: Final = 4096
_NEAR: Final = 1.25  # an average that is so near a number of runs counts as that number
_WEIGHT: Final = 0.1
_COST_WEIGHT: Final = 0.05  # runs differ by more than what is to be decided
# What one thread more takes from a run whose threads wait for the slowest of them.
_HARM: Final = 0.5


class Run(msgspec.Struct, eq=False):
    """A run under way."""

    size: int  # elements
    requests: int
    started: float
    expected_s: float
    area: float  # up to its start, see `Overlap._pass`
    number: int
    beside: bool  # more than are meant to be under way
    threads: int  # it may take


class Overlap:
    """Told of runs and the time, it says whether another one may start, and how large."""

    def __init__(self, most: int, cores: int) -> None:
        """`most` runs may be under way at once, and share so many cores."""
        self._most = most
        self._cores = cores
        self._levels = [*(1 << at for at in range((most - 1).bit_length())), most]
        self._costs = [Costs(_COST_WEIGHT) for _ in self._levels]
        # Which of the levels is in use, and which is on trial.
        self._at = 0
        self._trial: int | None = None
        self._next = 0  # it was the last one on trial
        self._counted, self._most_runs = 0, 0  # of a trial: runs that say something; any, to come
        self._length = _TRIAL_RUNS
        self._rest, self._rested = _REST, 0
        self._runs: set[Run] = set()
        self._numbers = count()
        self._clean_from = 0  # runs before this one began beside another number of them
        self._area = self._passed = 0.0
        self._run_s = 0.0
        self._request = 1.0  # elements
        self._waiting = 0
        self._usual = 0.0  # elements that wait or run
        self._slowed = most + 1.0  # the time of a run beside one with all cores, to one alone

    @property
    def at_once(self) -> int:
        """How many runs are meant to be under way when there is enough to do."""
        return self._levels[self._at if self._trial is None else self._trial]

    # ---- questions
    def allows(self, waiting: int, head: int, now: float) -> bool:
        """Whether a run may start now; `waiting` requests wait, the first of `head` elements."""
        self._waiting = waiting
        under_way = len(self._runs)
        if under_way < self.at_once:
            return True
        return under_way < self._most and waiting > 0 and self._relieves(head, now)

    def rows_worth(self, row_size: int, most: int) -> int:
        """How many rows of `row_size` elements, `most` at most, are worth joining in one batch."""
        rows = self._costs[self._at].rows_worth(row_size, most)
        if self.at_once > 1:
            # Runs at once are of one size: the largest of them would be the last to end.
            rows = min(rows, max(ceil(self._demand() / self.at_once / max(row_size, 1)), 1))
        return rows

    # ---- events
    def started(self, size: int, requests: int, now: float, *, waiting: int) -> Run:
        """A batch of `size` elements begins to run, `waiting` requests wait behind it."""
        self._pass(now)
        self._waiting = waiting
        self._request += _WEIGHT * (size / requests - self._request)
        expected_s = self._costs[0].seconds(size)
        if not self._runs and not waiting and self._trial is not None:
            # So little to do says nothing, and is better done by all cores.
            self._end_trial(self._at)
        beside = len(self._runs) >= self.at_once
        # Who is here already, or comes next, is not to find all cores taken.
        sharing = min(self.at_once, len(self._runs) + 1 + waiting)
        threads = max(self._cores // sharing, 1)
        number = next(self._numbers)
        run = Run(size, requests, now, expected_s, self._area, number, beside, threads)
        self._runs.add(run)
        return run

    def ended(self, run: Run, now: float, *, waiting: int, well: bool = True) -> None:
        """A run is over, `well` if its time says something; `waiting` requests wait."""
        self._pass(now)
        self._runs.remove(run)
        self._waiting = waiting
        self._usual += _WEIGHT * (self._demand() + run.size - self._usual)
        if well and now > run.started:
            self._learn(run, now - run.started)
        if self._run_s < _SHORT_S:
            self._at, self._trial = 0, None
        elif self._trial is not None:
            self._go_on()
        else:
            self._choose()

    def ran_alone(self, size: int, seconds: float) -> None:
        """A batch ran where nothing could be beside it."""
        self._run_s += _WEIGHT * (seconds - self._run_s) if self._run_s else seconds
        self._costs[0].record(size, seconds)

    # ---- steps
    def _pass(self, now: float) -> None:
        """Add to the area what ran since: the number of runs, times their seconds."""
        self._area += len(self._runs) * max(now - self._passed, 0.0)
        self._passed = now

    def _learn(self, run: Run, seconds: float) -> None:
        self._run_s += _WEIGHT * (seconds - self._run_s) if self._run_s else seconds
        at_once = (self._area - run.area) / seconds
        if run.beside:
            if run.expected_s:
                self._slowed += _WEIGHT * (seconds / run.expected_s - self._slowed)
            return
        if run.number < self._clean_from:
            return
        for level, costs in zip(self._levels, self._costs, strict=True):
            if level / _NEAR <= at_once <= level * _NEAR:
                costs.record(run.size, seconds / at_once)
                self._counted += level == self.at_once

    def _choose(self) -> None:
        """Change the number of runs for a better one, or try another one."""
        best = min(range(len(self._levels)), key=self._cost)
        if self._cost(best) < self._cost(self._at) * _CLEAR:
            self._change(best, None)
            self._rest, self._length = _REST, _TRIAL_RUNS
        self._rested += 1
        if self._rested < self._rest or not self._waiting or len(self._levels) < 2:
            return
        self._rested = 0
        self._next = (self._next + 1) % len(self._levels)
        if self._next == self._at:
            self._next = (self._next + 1) % len(self._levels)
        self._change(self._at, self._next)
        self._counted = 0
        self._most_runs = 4 * self._enough()

    def _go_on(self) -> None:
        """One more run of a trial has ended."""
        assert self._trial is not None
        trial = self._trial
        self._most_runs -= 1
        new, old = self._cost(trial), self._cost(self._at)
        hopeless = self._counted >= self.at_once and new > old / _CLEAR
        if self._counted < self._enough() and self._most_runs > 0 and not hopeless:
            return
        better = new < old * (_BETTER if trial > self._at else 1.0)
        self._end_trial(trial if better else self._at)
        if new < old * _CLEAR:
            self._rest, self._length = _REST, _TRIAL_RUNS

    def _end_trial(self, at: int) -> None:
        self._rest = min(2 * self._rest, _MOST_REST)
        self._length = min(2 * self._length, _MOST_TRIAL_RUNS)
        self._change(at, None)

    def _enough(self) -> int:
        """How many runs of a trial say enough."""
        return max(self._length, 2 * self.at_once)

    def _change(self, at: int, trial: int | None) -> None:
        was = self.at_once
        self._at, self._trial = at, trial
        if self.at_once != was:
            self._clean_from = next(self._numbers)

    def _cost(self, at: int) -> float:
        """Of an element, with the work that is usual in as many batches as this level has."""
        cost = self._costs[at].least(int(self._usual / self._levels[at]))
        return float("inf") if cost is None else cost

    def _demand(self) -> float:
        """Elements that wait or run."""
        return self._waiting * self._request + sum([run.size for run in self._runs])

    def _relieves(self, head: int, now: float) -> bool:
        """Whether a request of `head` elements gains by running beside more than others lose."""
        if self._run_s < _SHORT_S:
            return False
        own_s = self._costs[0].seconds(head)
        if not own_s:
            return False
        beside_s = self._slowed * own_s
        wait_s = min([max(run.started + run.expected_s - now, 0.0) for run in self._runs])
        others = sum([run.requests for run in self._runs])
        return wait_s + own_s - beside_s > _HARM * beside_s * others

"""Roll-outs without a server: how often good candidates are sent back, how soon bad ones are found.

    python -m benchmarks.rollout_simulation [--runs 1000]

Each scenario simulates many roll-outs of the default plan side by side: per second so many requests
with latencies and errors of a known distribution. The decisions use the server's own tests
(`tuili.server.rollout`), looked at every second. Beside them, fixed thresholds in the manner of
Flagger judge the same requests: every ten seconds the candidate's p99 and success rate must be
good, and some number of failed checks sends it back. Their thresholds are set from the true
stable latency, which no operator knows.

Exits with 1 when a goal of the issue is missed: false rollbacks at most 5 %, power at least 95 %.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuili.server.rollout import evidence
from tuili.server.rollout.buckets import PER_OCTAVE, shift_of
from tuili.server.rollout.dispersion import ENOUGH_SLICES, factor_of, residual_of
from tuili.server.rollout.metrics import metric_of
from tuili.server.rollout.plan import Plan

Array = np.ndarray[Any, Any]
QUANTILES = {"latency_p50": 0.5, "latency_p99": 0.99}
SIGMA = 0.25
LIMITS = (1, 5)
_WINDOW_S, _FIXED_S = 10, 300
PLAN = Plan(model="m", candidates={"candidate": 2})


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is planted in the candidate, and how requests hang together."""

    name: str
    slower: float = 1.0
    tail: float = 1.0  # only of the slowest five percent
    errors: float = 0.001
    more_errors: float = 0.0
    cluster: int = 1  # requests that share one outcome
    shocks: bool = False  # some seconds are slow for everybody
    bad: bool = True
    horizon_s: int = 400


SCENARIOS = (
    Scenario("A/A", bad=False),
    Scenario("A/A, 1 % errors", errors=0.01, bad=False),
    Scenario("A/A, slow seconds for all", shocks=True, bad=False),
    Scenario("A/A, batches of 8 share a fate", cluster=8, bad=False),
    Scenario("p99 +10 %, median equal", tail=1.1),
    Scenario("all 10 % slower", slower=1.1),
    Scenario("all 30 % slower", slower=1.3),
    Scenario("errors +0.5 points", more_errors=0.005),
    Scenario("errors +0.5 points on 1 %", errors=0.01, more_errors=0.005),
)


@dataclass(slots=True)
class Result:
    """How the runs of a scenario ended, after how many answers of the candidate and seconds."""

    outcome: Array
    samples: Array
    seconds: Array


@dataclass(slots=True)
class Fixed:
    """When fixed thresholds sent the candidate back (0: never), after how many of its answers."""

    seconds: Array
    answers: Array


def latency_probabilities(slower: float, tail: float) -> Array:
    """A log-normal latency around one, over buckets of the server's ratio; the last takes all."""
    width = int(5 * SIGMA / math.log(2) * PER_OCTAVE)
    edges = np.arange(-width, width + PER_OCTAVE // 3 + 24) / PER_OCTAVE * math.log(2)
    start = 1.645 * SIGMA  # where the slowest five percent begin
    plain = np.log(slower) * np.ones_like(edges)
    full = 1.9 * SIGMA
    ramp = np.clip((edges - start) / (full - start), 0, 1) * math.log(tail)
    z = (edges - plain - ramp) / SIGMA
    cdf = np.array([0.5 * (1 + math.erf(each / math.sqrt(2))) for each in z])
    inner = np.maximum(np.diff(cdf), 0)
    first, last = np.array([cdf[0]]), np.array([1 - cdf[0] - inner.sum()])
    found = np.concatenate([first, inner, np.maximum(last, 0)])
    return found / found.sum()


class Arm:
    """One variant in all runs: counts of the step, and of the last second."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator, *, candidate: bool) -> None:
        extra = scenario.more_errors if candidate else 0.0
        slower = scenario.slower if candidate else 1.0
        tail = scenario.tail if candidate else 1.0
        self.rng = rng
        self.cluster = scenario.cluster
        self.calm = latency_probabilities(slower, tail)
        shock = np.roll(self.calm, 12)
        shock[:12] = 0
        self.shocked = shock / (shock.sum() * (1 + 1e-12))
        self.error_rate = scenario.errors + extra
        self.restart(0)

    def restart(self, runs: int) -> None:
        """A new step."""
        self.histogram = np.zeros((runs, len(self.calm)))
        self.errors, self.requests = np.zeros(runs), np.zeros(runs)
        self.second: Array = self.histogram
        self.second_errors: Array = self.errors
        self.second_requests = 0.0

    def keep(self, left: Array) -> None:
        """Forget the runs that have ended."""
        self.histogram, self.errors = self.histogram[left], self.errors[left]
        self.requests = self.requests[left]

    def step(self, requests: int, shocked: bool) -> None:
        """One second."""
        groups, size = max(requests // self.cluster, 1), self.cluster
        runs = len(self.errors)
        failed = self.rng.binomial(groups, self.error_rate, size=runs)
        weights = self.shocked if shocked else self.calm
        self.second = size * self.rng.multinomial(groups - failed, weights).astype(float)
        self.second_errors = size * failed.astype(float)
        self.second_requests = float(size * groups)
        self.histogram += self.second
        self.errors += self.second_errors
        self.requests += self.second_requests


class Scatter:
    """Overdispersion of all runs, as `tuili.server.rollout.slices` has it for one."""

    def __init__(self, runs: int) -> None:
        self.sums = {name: np.zeros((4, runs)) for name in ("error_rate", *QUANTILES)}

    def keep(self, left: Array) -> None:
        """Forget the runs that have ended."""
        self.sums = {name: each[:, left] for name, each in self.sums.items()}

    def second(self, stable: Arm, candidate: Arm, bounds: dict[str, int]) -> None:
        """Close a second."""
        trials = (stable.second_requests, candidate.second_requests)
        self._add("error_rate", (stable.second_errors, candidate.second_errors), trials)
        for name, bound in bounds.items():
            events = tuple(arm.second[:, bound:].sum(axis=1) for arm in (stable, candidate))
            self._add(name, (events[0], events[1]), trials)

    def _add(self, name: str, events: tuple[Array, Array], trials: tuple[float, float]) -> None:
        counted = (events[0] + events[1]) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = np.where(counted, residual_of(events, trials), 0.0)
        sums = self.sums[name]
        sums[:3] += np.stack([counted.astype(float), residual, residual * residual])
        sums[3] = np.maximum(sums[3], np.maximum(*events))

    def factor(self, name: str) -> Array:
        """What counts are divided by."""
        return factor_of(*self.sums[name])


def evidence_of(name: str, stable: Arm, candidate: Arm, scatter: Scatter, by: float) -> Array:
    """Evidence that the candidate is worse by more than `by`."""
    factor = scatter.factor(name)
    if name == "error_rate":
        events = (stable.errors / factor, candidate.errors / factor)
        trials = (stable.requests / factor, candidate.requests / factor)
        return evidence.rate_higher(events, trials, by)
    a, b = stable.histogram / factor[:, None], candidate.histogram / factor[:, None]
    return evidence.quantile_higher(a, b, QUANTILES[name], shift_of(1 + by))


def proof_of(name: str, stable: Arm, candidate: Arm, scatter: Scatter, by: float) -> Array:
    """Evidence that the candidate is worse by less than `by`."""
    factor = scatter.factor(name)
    if name == "error_rate":
        events = (candidate.errors / factor, stable.errors / factor)
        trials = (candidate.requests / factor, stable.requests / factor)
        return evidence.rate_higher(events, trials, -by)
    a, b = stable.histogram / factor[:, None], candidate.histogram / factor[:, None]
    shift = math.floor(math.log2(1 + by) * PER_OCTAVE)
    return evidence.quantile_higher(b, a, QUANTILES[name], -shift)


def simulate(scenario: Scenario, runs: int, rate: int, seed: int) -> Result:
    """All runs of a scenario under the default plan."""
    rng = np.random.default_rng(seed)
    stable, candidate = (Arm(scenario, rng, candidate=each) for each in (False, True))
    bounds = {n: int(np.searchsorted(np.cumsum(stable.calm), q)) for n, q in QUANTILES.items()}
    scatter = Scatter(runs)
    bar = math.log(PLAN.tests() / PLAN.alpha)
    alive = np.arange(runs)
    result = Result(np.full(runs, "open", object), np.zeros(runs), np.full(runs, np.inf))
    seen = np.zeros(runs)
    clock = 0
    for at, step in enumerate(PLAN.steps):
        stable.restart(len(alive))
        candidate.restart(len(alive))
        last = at == PLAN.last_step
        for second in range(1, (scenario.horizon_s if last else int(step.min_time_s)) + 1):
            if not len(alive):
                break
            clock += 1
            mine = max(int(rate * step.weight / 100), 1)
            shocked = scenario.shocks and bool(rng.random() < 0.1)
            stable.step(rate - mine, shocked)
            candidate.step(mine, shocked)
            scatter.second(stable, candidate, bounds)
            seen[alive] += candidate.second_requests
            if second < ENOUGH_SLICES:
                continue
            worst, proved = decide(stable, candidate, scatter, last and second >= step.min_time_s)
            ended = {"rollback": worst >= bar, "promote": (proved >= bar) & (worst < bar)}
            for word, which in ended.items():
                result.outcome[alive[which]] = word
                result.seconds[alive[which]] = clock
            left = ~(ended["rollback"] | ended["promote"])
            alive = alive[left]
            for each in (stable, candidate, scatter):
                each.keep(left)
    result.samples = seen
    return result


def decide(stable: Arm, candidate: Arm, scatter: Scatter, may_promote: bool) -> tuple[Array, Array]:
    """(the strongest evidence of harm, the weakest proof of the others) of every run."""
    names = ("error_rate", *QUANTILES)
    metrics = {name: metric_of(name) for name in names}
    worst = np.max(
        [evidence_of(n, stable, candidate, scatter, metrics[n].tolerance) for n in names], axis=0
    )
    if not may_promote:
        return worst, np.full_like(worst, -np.inf)
    proved = [proof_of(n, stable, candidate, scatter, metrics[n].margin) for n in names]
    return worst, np.min(proved, axis=0)


def fixed_thresholds(scenario: Scenario, runs: int, rate: int, seed: int, limit: int) -> Fixed:
    """Checks of ten seconds of the candidate against set limits; `limit` failures send it back.

    The bound of the p99 is five percent above the true one of the stable variant, that of errors a
    quarter of a point above its rate. The last step lasts until five minutes have passed.
    """
    rng = np.random.default_rng(seed)
    stable, candidate = (Arm(scenario, rng, candidate=each) for each in (False, True))
    bound = int(np.searchsorted(np.cumsum(stable.calm), 0.99)) + shift_of(1.05)
    failed, answers = np.zeros(runs), 0.0
    found = Fixed(np.zeros(runs), np.zeros(runs))
    clock = 0
    while clock < _FIXED_S:
        step = PLAN.steps[min(clock // 30, PLAN.last_step)]
        slow, errors, total = np.zeros(runs), np.zeros(runs), 0.0
        for _ in range(_WINDOW_S):
            shocked = scenario.shocks and bool(rng.random() < 0.1)
            weights = candidate.shocked if shocked else candidate.calm
            groups = max(int(rate * step.weight / 100) // scenario.cluster, 1)
            total += groups * scenario.cluster
            errors += scenario.cluster * rng.binomial(groups, candidate.error_rate, runs)
            share = float(weights[bound + 1 :].sum())
            slow += scenario.cluster * rng.binomial(groups, share, runs)
        clock += _WINDOW_S
        answers += total
        failed += (slow > 0.01 * total) | (errors > (scenario.errors + 0.0025) * total)
        now = (failed >= limit) & (found.seconds == 0)
        found.seconds[now], found.answers[now] = clock, answers
    return found


def row_of(scenario: Scenario, result: Result, fixed: list[Fixed]) -> tuple[str, float]:
    """A line of the table, and the share that was rolled back."""
    back = result.outcome == "rollback"
    found = result.samples[back]
    half, most = np.percentile(found, [50, 95]) if back.any() else (0, 0)
    seconds = np.median(result.seconds[back]) if back.any() else 0
    promoted = np.mean(result.outcome == "promote")
    cells = [
        f"{scenario.name:32} {100 * back.mean():8.1f} % {100 * promoted:8.1f} %",
        f"{half:10,.0f} {most:10,.0f} {seconds:7.0f} s" if back.any() else f"{'':30}",
    ]
    for each in fixed:
        hit = each.seconds > 0
        usual = np.median(each.answers[hit]) if hit.any() else 0
        cells.append(f"{100 * hit.mean():7.1f} % {usual:8,.0f}")
    return " | ".join(cells), float(back.mean())


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=2000, help="requests a second, both variants")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{options.runs} roll-outs each, {options.rate} requests/s, steps of "
        f"{', '.join(f'{step.weight:g} %' for step in PLAN.steps)}; alpha {PLAN.alpha:g} over "
        f"{PLAN.tests()} tests; latencies log-normal, sigma {SIGMA}\n"
    )
    print(
        f"{'':32} {'rolled back':>10} {'promoted':>9} | candidate answers to the verdict"
        "  | fixed: 1 failed check | 5 failed checks\n"
        f"{'':32} {'':>10} {'':>9}   | {'half within':>10} {'95 % within':>8} {'median':>6}"
        "    | back, answers         | back, answers"
    )
    started, missed = time.monotonic(), []
    for at, scenario in enumerate(SCENARIOS):
        result = simulate(scenario, options.runs, options.rate, options.seed + at)
        fixed = [
            fixed_thresholds(scenario, options.runs, options.rate, options.seed + at, limit)
            for limit in LIMITS
        ]
        line, share = row_of(scenario, result, fixed)
        print(line, flush=True)
        if (share < 0.95) if scenario.bad else (share > 0.05):
            missed.append(scenario.name)
    print(f"\n{time.monotonic() - started:.0f} s; goals missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

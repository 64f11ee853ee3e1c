"""Verdict: what the numbers of a step say, in one of four words and in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tuili.server.rollout import guards
from tuili.server.rollout.dispersion import ENOUGH_SLICES
from tuili.server.rollout.evidence import shares_differ
from tuili.server.rollout.metrics import Metric, Pair, metric_of
from tuili.server.rollout.plan import STABLE, Plan
from tuili.server.rollout.tally import Tally

_SRM_BAR = math.log(1e4)


class Outcome(Enum):
    """What to do with a candidate now."""

    PROMOTE = "PROMOTE"
    ROLLBACK = "ROLLBACK"
    CONTINUE = "CONTINUE"
    HOLD = "HOLD"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, why, and the numbers behind it; `step_done`: CONTINUE with the next step."""

    outcome: Outcome
    reasons: tuple[str, ...]
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])
    step_done: bool = False

    def text(self) -> str:
        """The reasons as one sentence."""
        return "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything known of a step: tallies by variant, overdispersion by candidate and metric.

    Times are seconds; `quiet_s` is how long the candidate has had no answer.
    """

    tallies: Mapping[str, Tally]
    factors: Mapping[str, Mapping[str, float]]
    slices: int
    elapsed_s: float
    quiet_s: Mapping[str, float]
    # What the split should have dealt to each variant, as shares; empty: not to be checked.
    shares: Mapping[str, float]


def judge(plan: Plan, step: int, candidate: str, seen: Seen) -> Verdict:
    """The verdict on one candidate: guards first, then the split, harm, silence, proof."""
    bar = math.log(plan.tests() / plan.alpha)
    pair = _pair(candidate, seen)
    for check in (
        lambda: guards.tripped(plan.guards, pair),
        lambda: _bad_split(seen),
        lambda: _harm(plan, step, pair, bar, seen),
        lambda: _silent(plan, step, candidate, seen),
    ):
        verdict = _as_verdict(check())
        if verdict is not None:
            return verdict
    return _progress(plan, step, pair, bar, seen)


def _as_verdict(found: Verdict | str | None) -> Verdict | None:
    return Verdict(Outcome.ROLLBACK, (found,)) if isinstance(found, str) else found


def _pair(candidate: str, seen: Seen) -> Pair:
    factors = seen.factors.get(candidate, {})
    stable = seen.tallies.get(STABLE) or Tally()
    other = seen.tallies.get(candidate) or Tally()
    return Pair(stable, other, lambda name: factors.get(name, 1.0))


def _bad_split(seen: Seen) -> Verdict | None:
    """Hold when units were not dealt out as asked: then the groups differ, whatever the metrics."""
    names = [name for name, share in seen.shares.items() if share > 0]
    counts = [seen.tallies[name].units if name in seen.tallies else 0 for name in names]
    shares = [seen.shares[name] for name in names]
    if len(names) < 2 or float(shares_differ(counts, shares)) < _SRM_BAR:
        return None
    total = sum(counts)
    told = ", ".join(
        f"{name} {count} ({100 * count / total:.2f} % instead of {100 * share:.2f} %)"
        for name, count, share in zip(names, counts, shares, strict=True)
    )
    return Verdict(
        Outcome.HOLD,
        (f"the split is not what was asked for, so the groups cannot be compared: {told}",),
        {"units": dict(zip(names, counts, strict=True))},
    )


def _harm(plan: Plan, step: int, pair: Pair, bar: float, seen: Seen) -> Verdict | None:
    if seen.slices < ENOUGH_SLICES:
        return None  # overdispersion is not known yet; the guards stand meanwhile
    for name, target in plan.metrics_at(step).items():
        metric = metric_of(name)
        tolerance = limit(target.tolerance, metric.tolerance)
        if min(metric.samples(pair)) and metric.worse(pair, tolerance) >= bar:
            words, numbers = describe(name, metric, pair, bar)
            allowed = f"{100 * tolerance:g} %"
            text = f"{words}: surely worse than the {allowed} that is tolerated"
            return Verdict(Outcome.ROLLBACK, (text,), {name: numbers})
    return None


def _silent(plan: Plan, step: int, candidate: str, seen: Seen) -> Verdict | None:
    quiet, limit_s = seen.quiet_s.get(candidate, 0.0), plan.guards.silence_s
    if not limit_s or quiet < limit_s:
        return None
    text = f"{candidate} has answered nothing for {quiet:.0f} s: without numbers nothing is decided"
    return Verdict(Outcome.HOLD, (text,), {"quiet_s": quiet})


def _progress(plan: Plan, step: int, pair: Pair, bar: float, seen: Seen) -> Verdict:
    """Nothing speaks against the candidate; is it enough for what comes next?"""
    rule = plan.steps[step]
    shadowing = not rule.weight
    samples = pair.candidate.compared if shadowing else pair.candidate.requests
    waits: list[str] = []
    if seen.elapsed_s < rule.min_time_s:
        waits.append(f"{seen.elapsed_s:.0f} of {rule.min_time_s:g} s")
    if samples < rule.min_samples:
        waits.append(f"{samples} of {rule.min_samples} samples")
    proofs: list[str] = []
    numbers: dict[str, Any] = {}
    if not waits and plan.required_at(step) == "proof":
        waits, proofs, numbers = _proofs(plan, step, pair, bar)
    if not waits:
        proofs = proofs or [f"nothing is surely worse after {samples} answers"]
        if step == plan.last_step:
            return Verdict(Outcome.PROMOTE, tuple(proofs), numbers)
        return Verdict(Outcome.CONTINUE, tuple(proofs), numbers, step_done=True)
    if seen.elapsed_s > rule.max_time_s:
        return _inconclusive(plan, waits, numbers, rule.max_time_s)
    return Verdict(Outcome.CONTINUE, (f"step {step} waits for " + ", ".join(waits),), numbers)


def _proofs(
    plan: Plan, step: int, pair: Pair, bar: float
) -> tuple[list[str], list[str], dict[str, Any]]:
    """(what is not proved yet, what is, its numbers): every gate must be within its margin."""
    open_, done, numbers = [], [], {}
    for name, target in plan.metrics_at(step).items():
        metric = metric_of(name)
        if not target.gate:
            continue
        margin = limit(target.margin, metric.margin)
        if min(metric.samples(pair)) and metric.fine(pair, margin) >= bar:
            words, numbers[name] = describe(name, metric, pair, bar)
            done.append(f"{words}: surely within the margin of {100 * margin:g} %")
        else:
            open_.append(f"proof that {name} is within {100 * margin:g} %")
    return open_, done, numbers


def _inconclusive(
    plan: Plan, waits: list[str], numbers: dict[str, Any], max_time_s: float
) -> Verdict:
    outcome = {
        "hold": Outcome.HOLD,
        "rollback": Outcome.ROLLBACK,
        "promote": Outcome.PROMOTE,
    }[plan.on_inconclusive]
    text = f"no answer within {max_time_s:g} s, still missing: {', '.join(waits)}"
    return Verdict(outcome, (text,), numbers)


def limit(given: float | None, default: float) -> float:
    """A plan's own limit, or the default of the metric's kind."""
    return default if given is None else given


def describe(name: str, metric: Metric, pair: Pair, bar: float) -> tuple[str, dict[str, Any]]:
    """A metric in words, and its numbers."""
    found = metric.interval(pair, bar)
    n = metric.samples(pair)
    effect: Callable[[float], str] = (
        (lambda v: f"{100 * v:+.2g} %") if metric.relative else (lambda v: f"{100 * v:+.3g} points")
    )
    if name == "disagreement":
        words = f"{name}: {metric.show(found.candidate)} of {n[1]} shadowed answers"
    else:
        words = (
            f"{name}: {metric.show(found.candidate)} against {metric.show(found.stable)}, "
            f"{effect(found.effect)}"
        )
    words += f" (at any time between {effect(found.lower)} and {effect(found.upper)}"
    words += ")" if name == "disagreement" else f", of {n[1]} and {n[0]} answers)"
    numbers = {
        "stable": found.stable, "candidate": found.candidate, "effect": found.effect,
        "lower": found.lower, "upper": found.upper, "samples": list(n),
        "overdispersion": pair.factor(name),
    }  # fmt: skip
    return words, numbers

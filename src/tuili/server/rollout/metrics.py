"""Metrics: what a candidate is judged by, one row per kind, each by one-sided tests.

Every metric has a *tolerance* (worse by more than this, for sure: roll back) and a *margin* (worse
by less than this, for sure: good enough to promote; "non-inferior"). Between the two either
answer is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.rollout import buckets
from tuili.server.rollout import evidence as e
from tuili.server.rollout.tally import DURATIONS, Tally

_QUANTILE: Final = re.compile(r"(latency|queue|compute)_p(\d{2}(?:\.\d+)?)")
_FEEDBACK: Final = "feedback:"
KNOWN: Final = "error_rate, nan_rate, disagreement, {latency,queue,compute}_p50..p99, feedback:NAME"
Histograms = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
_WIDEST: Final = 2 * buckets.PER_OCTAVE
# How far the interval of a ratio is looked for: a thousand times.
_FARTHEST: Final = 10 * buckets.PER_OCTAVE


@dataclass(frozen=True, slots=True)
class Pair:
    """The stable variant's tally, the candidate's, and how overdispersed their counts are."""

    stable: Tally
    candidate: Tally
    factor: Callable[[str], float] = lambda name: 1.0


@dataclass(frozen=True, slots=True)
class Interval:
    """An effect with bounds that hold at any time: how much worse the candidate is."""

    stable: float
    candidate: float
    effect: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Metric:
    """How one kind of metric is tested.

    `worse(pair, by)` and `fine(pair, by)` are logs of e-processes against the candidate being worse
    by at most, or at least, `by`; `interval(pair, bar)` inverts them; `samples` says of how
    many answers; `show` writes a value.
    """

    tolerance: float
    margin: float
    worse: Callable[[Pair, float], float]
    fine: Callable[[Pair, float], float]
    interval: Callable[[Pair, float], Interval]
    samples: Callable[[Pair], tuple[int, int]]
    show: Callable[[float], str]
    relative: bool = False


def metric_of(name: str) -> Metric:
    """The metric called `name`; InvalidArgument for unknown ones."""
    if name in _RATES:
        count, trials, higher_is_worse, margin = _RATES[name]
        return _rate(name, count, trials, margin, higher_is_worse=higher_is_worse)
    if name == "disagreement":
        return _disagreement()
    if name.startswith(_FEEDBACK) and len(name) > len(_FEEDBACK):
        key = name.removeprefix(_FEEDBACK)
        return _rate(
            name,
            lambda t: t.feedback.get(key, (0.0, 0))[0],
            lambda t: t.feedback.get(key, (0.0, 0))[1],
            0.02,
            higher_is_worse=False,
        )
    found = _QUANTILE.fullmatch(name)
    if found is None or not 0 < float(found[2]) < 100:
        raise InvalidArgument(f"unknown metric {name!r}; known: {KNOWN}")
    return _duration(name, found[1], float(found[2]) / 100)


# name: events, trials, whether more of them is worse, margin
_RATES: Final[dict[str, tuple[Callable[[Tally], float], Callable[[Tally], int], bool, float]]] = {
    "error_rate": (lambda t: t.errors, lambda t: t.requests, True, 0.005),
    "nan_rate": (lambda t: t.nans, lambda t: t.checked, True, 0.001),
}


def _rate(
    name: str,
    count: Callable[[Tally], float],
    trials: Callable[[Tally], int],
    margin: float,
    *,
    higher_is_worse: bool,
) -> Metric:
    """Two rates; the effect is their difference."""
    sign = 1.0 if higher_is_worse else -1.0

    def counts(pair: Pair) -> tuple[tuple[float, float], tuple[float, float]]:
        factor = pair.factor(name)
        k = (count(pair.stable) / factor, count(pair.candidate) / factor)
        n = (trials(pair.stable) / factor, trials(pair.candidate) / factor)
        return k, n

    def worse(pair: Pair, by: float) -> float:
        k, n = counts(pair)
        if not higher_is_worse:
            k = (n[0] - k[0], n[1] - k[1])
        return float(e.rate_higher(k, n, by))

    def fine(pair: Pair, by: float) -> float:
        (k1, k2), (n1, n2) = counts(pair)
        if not higher_is_worse:
            k1, k2 = n1 - k1, n2 - k2
        return float(e.rate_higher((k2, k1), (n2, n1), -by))

    def interval(pair: Pair, bar: float) -> Interval:
        k, n = counts(pair)
        stable, candidate = k[0] / max(n[0], 1e-9), k[1] / max(n[1], 1e-9)
        effect = sign * (candidate - stable)
        lower = _bound(lambda by: worse(pair, by) >= bar, -1.0, effect)
        upper = -_bound(lambda by: fine(pair, -by) >= bar, -1.0, -effect)
        return Interval(stable, candidate, effect, lower, upper)

    def samples(pair: Pair) -> tuple[int, int]:
        return trials(pair.stable), trials(pair.candidate)

    return Metric(0.0, margin, worse, fine, interval, samples, lambda v: f"{100 * v:.3g} %")


def _bound(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest effect in [low, high] that is refuted from below; `low` when none is."""
    for _ in range(18):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _disagreement() -> Metric:
    """The share of shadowed answers that differ from the stable variant's; one stream."""

    def counts(pair: Pair) -> tuple[int, int]:
        return pair.candidate.differing, pair.candidate.compared

    def interval(pair: Pair, bar: float) -> Interval:
        k, n = counts(pair)
        rate = k / max(n, 1)
        lower = _bound(lambda by: float(e.rate_above(k, n, by)) >= bar, 0.0, rate)
        upper = 1 - _bound(lambda by: float(e.rate_below(k, n, 1 - by)) >= bar, 0.0, 1 - rate)
        return Interval(0.0, rate, rate, lower, upper)

    return Metric(
        0.005,
        0.01,
        lambda pair, by: float(e.rate_above(*counts(pair), by)),
        lambda pair, by: float(e.rate_below(*counts(pair), by)),
        interval,
        lambda pair: (pair.candidate.compared, pair.candidate.compared),
        lambda v: f"{100 * v:.3g} %",
    )


def _duration(name: str, kind: str, share: float) -> Metric:
    """A quantile of a duration; the effect is the relative increase (0.1: ten percent slower)."""
    assert kind in DURATIONS
    spread = "latency_p50" if share < 0.9 else "latency_p99"

    def histograms(pair: Pair, room: int = _WIDEST) -> Histograms:
        factor = pair.factor(spread)
        first = np.asarray(pair.stable.durations[kind]) / factor
        second = np.asarray(pair.candidate.durations[kind]) / factor
        return _trimmed(first, second, room)

    def worse(pair: Pair, by: float) -> float:
        first, second = histograms(pair)
        return float(e.quantile_higher(first, second, share, buckets.shift_of(1 + by)))

    def fine(pair: Pair, by: float) -> float:
        first, second = histograms(pair)
        return float(e.quantile_higher(second, first, share, -_floor_shift(1 + by)))

    def interval(pair: Pair, bar: float) -> Interval:
        first, second = histograms(pair, _FARTHEST)
        middles = [buckets.quantile(np.asarray(each.durations[kind]), share)
                   for each in (pair.stable, pair.candidate)]  # fmt: skip
        shift = middles[1] - middles[0]
        lower = _largest_shift(lambda k: e.quantile_higher(first, second, share, k) >= bar, shift)
        upper = -_largest_shift(lambda k: e.quantile_higher(second, first, share, k) >= bar, -shift)
        low, mid, high = (buckets.ratio_of(k) - 1 for k in (lower, shift, upper))
        if lower == -_FARTHEST:
            low = -1.0  # nothing is refuted as far as is looked
        low, high = min(low, mid), max(high, mid)
        stable, candidate = (buckets.seconds_of(at) for at in middles)
        return Interval(stable, candidate, mid, low, high)

    def samples(pair: Pair) -> tuple[int, int]:
        found = [sum(each.durations[kind]) for each in (pair.stable, pair.candidate)]
        return found[0], found[1]

    return Metric(0.03, 0.1, worse, fine, interval, samples, _show_seconds, relative=True)


def _floor_shift(ratio: float) -> int:
    """The largest shift whose ratio is at most `ratio`: bounds get tighter."""
    return int(np.floor(np.log2(ratio) * buckets.PER_OCTAVE + 1e-9))


def _trimmed(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], room: int) -> Histograms:
    """Both without the buckets that neither uses, but for room to shift."""
    used = np.flatnonzero(first + second)
    if not used.size:
        return np.zeros(1), np.zeros(1)
    low = max(int(used[0]) - room, 0)
    high = min(int(used[-1]) + room + 1, buckets.SIZE)
    return first[low:high], second[low:high]


def _largest_shift(holds: Callable[[int], Any], most: int) -> int:
    """The largest shift up to `most` that is refuted; the widest when none is."""
    low, high = -_FARTHEST, max(most, -_FARTHEST)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bool(holds(middle)) else (low, middle - 1)
    return low


def _show_seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} us"

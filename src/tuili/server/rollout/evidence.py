"""Evidence that may be looked at as often as one likes: e-processes over counts.

An e-process is a running product that stays small in expectation while its null hypothesis holds,
whenever one looks: by Ville's inequality it exceeds 1/alpha with probability at most alpha, *ever*.
So a roll-out may be judged every second, and stopped at the first clear answer.

Each function returns the natural logarithm of an e-process; `log(1 / alpha)` is the bar.

- One stream of yes/no outcomes against a bound on its rate: the beta-binomial mixture of
  likelihood ratios. Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric,
  nonasymptotic confidence sequences", Annals of Statistics 2021.
- A composite null (a rate *at most* p, two rates that *differ by at most* d): the mixture over the
  largest likelihood that the null allows. Wasserman, Ramdas, Balakrishnan, "Universal inference",
  PNAS 2020.
- Quantiles of two streams: whatever the common bound x is, one of the streams must contradict it;
  the least product over all x is the evidence. Howard, Ramdas, "Sequential estimation of quantiles
  with applications to A/B testing and best-arm identification", Bernoulli 2022. Uses are as in
  Lindon, Sanden, Shirikian, "Rapid regression detection in software deployments through sequential
  testing", KDD 2022 (arXiv 2205.14762).
- Shares of traffic: the Dirichlet-multinomial mixture. Lindon, Malek, "Anytime-valid inference for
  multinomial count data", NeurIPS 2022.

All arguments broadcast; counts may be fractions (values in [0, 1] count as their sum: a likelihood
ratio is convex in the outcome, so its mean over such values is no larger than over yes and no).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Counts = npt.ArrayLike
Logs = npt.NDArray[np.float64]

# Priors of a rate, averaged: one that expects any rate, one that expects a rare event.
_RATE_PRIORS: Final = ((0.5, 0.5), (0.5, 200.0))
# How many events' worth of certainty the prior of a quantile has: it is best for rates that are
# off by a third to a half, which is where a tail is after a shift of some ten percent.
_PSEUDO_EVENTS: Final = 4.0
_HALF_LOG_TAU: Final = 0.5 * math.log(2 * math.pi)
_BISECTIONS: Final = 60


def log_gamma(x: npt.ArrayLike) -> Logs:
    """ln Γ(x) for x > 0, to 1e-12: Stirling's series after a shift by eight."""
    low = np.asarray(x, np.float64)
    shifted = low.copy()
    for step in range(1, 8):
        shifted = shifted * (low + step)
    y = low + 8.0
    inverse = 1.0 / y
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    return (y - 0.5) * np.log(y) - y + _HALF_LOG_TAU + series - np.log(shifted)


def log_mixture(events: Counts, trials: Counts, a: float, b: float) -> Logs:
    """ln of the probability of a sequence with so many events, its rate drawn from Beta(a, b)."""
    k, n = np.asarray(events, np.float64), np.asarray(trials, np.float64)
    # The last term has the shape of `trials` alone, which is often the smaller one.
    joint = log_gamma(a + k) + log_gamma(b + (n - k)) - log_gamma(a + b + n)
    return joint - (math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))


def log_likelihood(events: Counts, trials: Counts, rate: Counts) -> Logs:
    """ln of the probability of a sequence with so many events at a known rate; 0 log 0 is 0."""
    k, n, p = (np.asarray(each, np.float64) for each in (events, trials, rate))
    return _x_log_y(k, p) + _x_log_y(n - k, 1.0 - p)


def rate_above(events: Counts, trials: Counts, bound: float) -> Logs:
    """Evidence that events come at a rate above `bound` (null: at most `bound`)."""
    k, n = np.asarray(events, np.float64), np.asarray(trials, np.float64)
    allowed = np.minimum(_share(k, n), bound)
    return _rate_mixture(k, n) - log_likelihood(k, n, allowed)


def rate_below(events: Counts, trials: Counts, bound: float) -> Logs:
    """Evidence that events come at a rate below `bound` (null: at least `bound`)."""
    k, n = np.asarray(events, np.float64), np.asarray(trials, np.float64)
    return rate_above(n - k, n, 1.0 - bound)


def rate_higher(
    events: tuple[Counts, Counts], trials: tuple[Counts, Counts], by: Counts = 0.0
) -> Logs:
    """Evidence that the second stream's rate exceeds the first's by more than `by`.

    Null: second <= first + by. `by` may be negative.
    """
    k1, k2 = (np.asarray(each, np.float64) for each in events)
    n1, n2 = (np.asarray(each, np.float64) for each in trials)
    delta = np.asarray(by, np.float64)
    best1, best2 = _share(k1, n1), _share(k2, n2)
    free = log_likelihood(k1, n1, best1) + log_likelihood(k2, n2, best2)
    rate = _boundary_rate((k1, k2), (n1, n2), delta)
    bound = log_likelihood(k1, n1, rate) + log_likelihood(k2, n2, rate + delta)
    allowed = np.where(best2 <= best1 + delta, free, bound)
    return _rate_mixture(k1, n1) + _rate_mixture(k2, n2) - allowed


def quantile_higher(
    first: npt.NDArray[Any], second: npt.NDArray[Any], share: float, shift: int = 0
) -> Logs:
    """Evidence that the second stream's quantile lies more than `shift` buckets above the first's.

    `first` and `second` are histograms [..., buckets] over the same buckets of equal ratio;
    null: the bucket of the second's `share` quantile <= that of the first + `shift`.
    Whichever bucket j holds the first's quantile, under the null the first has less than `share`
    below j and the second at least `share` up to j + shift; the product of both contradictions at
    the most favourable j is what the null cannot explain.
    """
    below_first = _shifted(np.cumsum(first, axis=-1, dtype=np.float64), -1)
    upto_second = _shifted(np.cumsum(second, axis=-1, dtype=np.float64), shift)
    n1 = first.sum(axis=-1, keepdims=True).astype(np.float64)
    n2 = second.sum(axis=-1, keepdims=True).astype(np.float64)
    contradicts_first = _share_evidence(below_first, n1, share, above=True)
    contradicts_second = _share_evidence(upto_second, n2, share, above=False)
    return (contradicts_first + contradicts_second).min(axis=-1)


def shares_differ(counts: Counts, shares: Counts) -> Logs:
    """Evidence that units were not dealt out with these shares; both [..., variants]."""
    seen = np.asarray(counts, np.float64)
    wanted = np.asarray(shares, np.float64)
    prior = 100.0 * wanted
    total = seen.sum(axis=-1)
    mixture = (
        log_gamma(prior.sum(axis=-1))
        - log_gamma(prior.sum(axis=-1) + total)
        + (log_gamma(prior + seen) - log_gamma(prior)).sum(axis=-1)
    )
    return mixture - _x_log_y(seen, wanted).sum(axis=-1)


def _share_evidence(upto: Logs, trials: Logs, share: float, *, above: bool) -> Logs:
    """Evidence that more (or, not `above`, less) than `share` of a stream lies up to a bucket."""
    beyond = trials - upto
    expected = 1.0 - share
    weight = _PSEUDO_EVENTS / min(share, expected)
    mixture = log_mixture(beyond, trials, weight * expected, weight * share)
    seen = _share(beyond, trials)
    allowed = np.maximum(seen, expected) if above else np.minimum(seen, expected)
    return mixture - log_likelihood(beyond, trials, allowed)


def _shifted(cumulative: Logs, shift: int) -> Logs:
    """`cumulative` read `shift` buckets later: 0 before its start, its total past its end."""
    size = cumulative.shape[-1]
    at = np.arange(size) + shift
    found = cumulative[..., np.clip(at, 0, size - 1)]
    return np.where(at < 0, 0.0, found)


def _rate_mixture(k: Logs, n: Logs) -> Logs:
    parts = [log_mixture(k, n, a, b) for a, b in _RATE_PRIORS]
    return np.logaddexp.reduce(parts, axis=0) - math.log(len(parts))


def _boundary_rate(events: tuple[Logs, Logs], trials: tuple[Logs, Logs], delta: Logs) -> Logs:
    """The first rate that makes (rate, rate + delta) most likely: the root of the derivative."""
    (k1, k2), (n1, n2) = events, trials
    low = np.maximum(0.0, -delta) + np.zeros(np.broadcast(k1, k2, n1, n2).shape)
    high = np.minimum(1.0, 1.0 - delta) + np.zeros_like(low)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_BISECTIONS):
            p = 0.5 * (low + high)
            q = p + delta
            slope = k1 / p - (n1 - k1) / (1 - p) + k2 / q - (n2 - k2) / (1 - q)
            low, high = np.where(slope > 0, p, low), np.where(slope > 0, high, p)
    return 0.5 * (low + high)


def _share(k: Logs, n: Logs) -> Logs:
    return k / np.maximum(n, 1e-300)


def _x_log_y(x: Logs, y: Logs) -> Logs:
    with np.errstate(divide="ignore", invalid="ignore"):
        product = x * np.log(y)
    return np.where(x == 0, 0.0, product)

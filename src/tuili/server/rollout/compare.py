"""Compare: how far a shadowed answer is from the one that the client got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuili.server.rollout.plan import Comparison

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """The distance of two answers; `differs` says whether it counts, `why` in words.

    `top1` is the share of rows whose largest element is at the same place; `divergence` is the mean
    Jensen-Shannon divergence (nats) of rows that are distributions, else 0.
    """

    max_abs: float
    max_rel: float
    top1: float
    divergence: float
    differs: bool
    why: str = ""


def compare(
    stable: Mapping[str, Array], candidate: Mapping[str, Array], rules: Comparison
) -> Difference:
    """The largest difference over all outputs."""
    if stable.keys() != candidate.keys():
        return _apart(f"outputs {sorted(candidate)} instead of {sorted(stable)}")
    found = [_compare_one(name, stable[name], candidate[name], rules) for name in stable]
    worst = [each for each in found if each.differs]
    return Difference(
        max((each.max_abs for each in found), default=0.0),
        max((each.max_rel for each in found), default=0.0),
        min((each.top1 for each in found), default=1.0),
        max((each.divergence for each in found), default=0.0),
        bool(worst),
        worst[0].why if worst else "",
    )


def _apart(why: str) -> Difference:
    return Difference(0.0, 0.0, 0.0, 0.0, True, why)


def _compare_one(name: str, a: Array, b: Array, rules: Comparison) -> Difference:
    if a.shape != b.shape or a.dtype != b.dtype:
        return _apart(f"{name}: {b.dtype}{list(b.shape)} instead of {a.dtype}{list(a.shape)}")
    if a.dtype.kind not in "fV":  # numbers that are exact, text, truth values
        same = bool(np.array_equal(a, b))
        return Difference(0.0, 0.0, float(same), 0.0, not same, "" if same else f"{name} differs")
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        gap = np.where(np.isnan(gap), np.inf, gap)
        relative = np.where(gap == 0, 0.0, gap / np.maximum(np.abs(x), 1e-12))
        beyond = bool((gap > rules.atol + rules.rtol * np.abs(x)).any())
    top1 = _top1(x, y)
    largest = float(gap.max(initial=0.0))
    why = ""
    if rules.top1 and top1 < 1.0:
        why = f"{name}: {100 * (1 - top1):.3g} % of rows have another top class"
    elif (rules.values or _is_scalar(x)) and beyond:
        why = f"{name}: off by up to {largest:.4g}"
    return Difference(
        largest, float(relative.max(initial=0.0)), top1, _divergence(x, y), bool(why), why
    )


def _is_scalar(x: Array) -> bool:
    """Whether rows hold one number each, so that there is no top class to compare."""
    return x.ndim == 0 or x.shape[-1] < 2


def _top1(x: Array, y: Array) -> float:
    if _is_scalar(x) or not x.size:
        return 1.0
    return float((x.argmax(axis=-1) == y.argmax(axis=-1)).mean())


def _divergence(x: Array, y: Array) -> float:
    """Jensen-Shannon divergence (Lin 1991) of rows that are distributions."""
    if _is_scalar(x) or not x.size or x.min() < 0 or y.min() < 0:
        return 0.0
    if not np.allclose(x.sum(axis=-1), 1, atol=1e-2):
        return 0.0
    middle = 0.5 * (x + y)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [np.where(p > 0, p * np.log(p / middle), 0.0).sum(axis=-1) for p in (x, y)]
    return float(0.5 * (parts[0] + parts[1]).mean())

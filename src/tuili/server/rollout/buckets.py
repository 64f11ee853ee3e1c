"""Durations as histograms over buckets of one ratio, fine enough to tell 1 % apart.

Equal ratios make "ten percent slower" the same shift of buckets everywhere, so that a bound on a
ratio of quantiles is a bound on a shift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

PER_OCTAVE: Final = 64
_FIRST_OCTAVE: Final = 9  # 0.5 us
_OCTAVES: Final = 28  # up to 137 s
SIZE: Final = PER_OCTAVE * _OCTAVES
_OFFSET: Final = PER_OCTAVE * _FIRST_OCTAVE


def bucket_of(duration_ns: int) -> int:
    """The bucket of a duration; the first and last take what lies beyond."""
    if duration_ns <= 0:
        return 0
    at = int(math.log2(duration_ns) * PER_OCTAVE) - _OFFSET
    return min(max(at, 0), SIZE - 1)


def seconds_of(bucket: int) -> float:
    """The geometric middle of a bucket."""
    return float(2.0 ** ((bucket + _OFFSET + 0.5) / PER_OCTAVE)) / 1e9


def shift_of(ratio: float) -> int:
    """The shift that stands for a ratio, rounded away from one: bounds get wider, not tighter."""
    exact = math.log2(ratio) * PER_OCTAVE
    return math.ceil(exact - 1e-9) if exact >= 0 else math.floor(exact + 1e-9)


def ratio_of(shift: int) -> float:
    """The ratio that a shift stands for."""
    return float(2.0 ** (shift / PER_OCTAVE))


def quantile(counts: np.ndarray[Any, Any], share: float) -> int:
    """The bucket of a quantile; 0 of an empty histogram."""
    total = counts.sum()
    return int(np.searchsorted(np.cumsum(counts), share * total)) if total else 0


def sparse(counts: Iterable[int]) -> dict[str, int]:
    """The buckets that hold something, for JSON."""
    return {str(at): count for at, count in enumerate(counts) if count}


def dense(counts: dict[str, int]) -> list[int]:
    """The whole histogram again."""
    found = [0] * SIZE
    for at, count in counts.items():
        found[int(at)] = count
    return found

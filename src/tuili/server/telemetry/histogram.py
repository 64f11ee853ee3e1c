"""Histogram of durations: four buckets per power of two."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np

_STEPS: Final = 4
_SIZE: Final = 64 * _STEPS


class Histogram:
    """Counts of nanosecond durations; relative width of a bucket is at most 25 %."""

    __slots__ = ("_buckets", "count", "sum_ns")

    def __init__(self) -> None:
        self._buckets = [0] * _SIZE
        self.count = 0
        self.sum_ns = 0

    def record(self, duration_ns: int) -> None:
        """Count one duration."""
        bits = duration_ns.bit_length()
        self._buckets[bits * 4 + (duration_ns >> (bits - 3) & 3) if bits > 2 else 8] += 1
        self.count += 1
        self.sum_ns += duration_ns

    def record_all(self, durations_ns: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Count many durations."""
        bits = np.frexp(durations_ns.astype(np.float64))[1].astype(np.int64)
        steps = durations_ns >> np.maximum(bits - 3, 0) & 3
        at = np.bincount(np.where(bits > 2, bits * _STEPS + steps, 2 * _STEPS), minlength=_SIZE)
        for bucket in np.flatnonzero(at).tolist():
            self._buckets[bucket] += int(at[bucket])
        self.count += len(durations_ns)
        self.sum_ns += int(durations_ns.sum())

    def cumulative(self, reach: Sequence[int]) -> list[int]:
        """How many durations are at most about each bound, given the `reach` of the bounds."""
        totals = list(accumulate(self._buckets, initial=0))
        return [totals[buckets] for buckets in reach]

    def sparse(self) -> tuple[int, dict[int, int]]:
        """The sum of all durations, and the buckets that have any."""
        return self.sum_ns, {at: number for at, number in enumerate(self._buckets) if number}

    def add(self, sum_ns: int, buckets: dict[int, int]) -> None:
        """Count what another histogram counted."""
        self.sum_ns += sum_ns
        for at, number in buckets.items():
            self._buckets[at] += number
            self.count += number

    def quantile_ns(self, share: float) -> int:
        """An upper bound of the duration below which `share` of all lie; 0 when empty."""
        wanted, seen = share * self.count, 0
        for at, number in enumerate(self._buckets):
            seen += number
            if number and seen >= wanted:
                return _upper(at)
        return 0


def reach(bounds_ns: Iterable[int]) -> tuple[int, ...]:
    """How many of the buckets, from the first, hold nothing above each bound."""
    uppers = [_upper(bucket) for bucket in range(_SIZE)]
    return tuple(bisect_right(uppers, bound) for bound in bounds_ns)


def _upper(bucket: int) -> int:
    """The first duration above a bucket."""
    bits, step = divmod(bucket, _STEPS)
    return (step + _STEPS + 1) << (bits - 3) if bits > 2 else 4

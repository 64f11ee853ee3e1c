"""Histogram of durations: four buckets per power of two, 0.15 us to record."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

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

    def record_since(self, begins_ns: list[int], end_ns: int) -> None:
        """Count durations that ended at the same moment."""
        buckets = self._buckets
        for begin in begins_ns:
            duration_ns = end_ns - begin
            bits = duration_ns.bit_length()
            buckets[bits * 4 + (duration_ns >> (bits - 3) & 3) if bits > 2 else 8] += 1
        self.count += len(begins_ns)
        self.sum_ns += end_ns * len(begins_ns) - sum(begins_ns)

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

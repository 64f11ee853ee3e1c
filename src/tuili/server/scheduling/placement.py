"""Placement: run a batch on the event loop itself, or on a thread beside it, by measured time.

A thread hop costs about 20 us, so a model that takes 30 us is better run where the request is. The
time is learnt per power of two of the input's size; an unseen size is extrapolated linearly from
the nearest smaller one, so that one huge request does not stop the loop to find out.
"""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.2
# Apart, so that a model near the limit does not change sides all the time.
_STAY_INLINE_S: Final = 150e-6
_BECOME_INLINE_S: Final = 100e-6


class Placement:
    """Learns how long a model takes and says where to run the next batch."""

    def __init__(self, *, allowed: bool = True, limit_scale: float = 1.0) -> None:
        self._allowed = allowed
        self._scale = limit_scale
        self._seconds: dict[int, float] = {}
        self._inline: dict[int, bool] = {}

    def inline(self, size: int) -> bool:
        """Whether a batch of `size` input elements should run on the loop."""
        if not self._allowed:
            return False
        bucket = size.bit_length()
        expected = self.expected_s(size)
        if expected is None:
            return False
        limit = _STAY_INLINE_S if self._inline.get(bucket) else _BECOME_INLINE_S
        found = self._inline[bucket] = expected < limit * self._scale
        return found

    def record(self, size: int, seconds: float) -> None:
        """A run of `size` input elements took `seconds`."""
        bucket = size.bit_length()
        known = self._seconds.get(bucket)
        if known is None:
            self._seconds[bucket] = seconds
        else:
            # One preempted run must not push a tiny model off the loop: an outlier counts double.
            self._seconds[bucket] = known + _WEIGHT * (min(seconds, 2 * known + 10e-6) - known)

    def expected_s(self, size: int) -> float | None:
        """The expected time of a run, or None while nothing near was measured."""
        bucket = size.bit_length()
        known = self._seconds.get(bucket)
        if known is not None:
            return known
        smaller = [seen for seen in self._seconds if seen < bucket]
        if smaller:
            nearest = max(smaller)
            return self._seconds[nearest] * 2.0 ** (bucket - nearest)
        return self._seconds[min(self._seconds)] if self._seconds else None

"""Placement: where to run a batch, by measured time.

A thread hop costs about 20 us, so a model that takes 30 us is better run where the request is. The
time is learnt per power of two of the input's size; an unseen size is extrapolated linearly from
the nearest smaller one, so that one huge request does not stop the loop to find out.

A run beside the loop looks longer than it is, because it waits for the interpreter's lock before
and after. So what runs there, and might be quick, is tried on the loop once in a while; a time
measured on the loop counts more than any measured beside it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tuili.server.scheduling.costs import Costs

_WEIGHT: Final = 0.2
# Apart, so that a model near the limit does not change sides all the time.
_STAY_INLINE_S: Final = 150e-6
_BECOME_INLINE_S: Final = 100e-6
_TRY_BELOW_S: Final = 1e-3
_TRY_EVERY: Final = 32


class _Bucket(msgspec.Struct):
    """What is known of runs of about one size."""

    seconds: float
    inline: bool = False
    beside: int = 0


class Placement:
    """Learns how long a model takes and says where to run the next batch."""

    def __init__(self, *, allowed: bool = True) -> None:
        self._allowed = allowed
        self._buckets: dict[int, _Bucket] = {}
        self._costs = Costs()

    def inline(self, size: int) -> bool:
        """Whether a batch of `size` input elements should run on the loop."""
        if not self._allowed:
            return False
        bucket = self._buckets.get(size.bit_length())
        if bucket is None:
            expected = self.expected_s(size)
            return expected is not None and expected < _BECOME_INLINE_S
        limit = _STAY_INLINE_S if bucket.inline else _BECOME_INLINE_S
        bucket.inline = bucket.seconds < limit
        if bucket.inline:
            return True
        bucket.beside += 1
        return bucket.seconds < _TRY_BELOW_S and bucket.beside % _TRY_EVERY == 0

    def record(self, size: int, seconds: float, *, on_loop: bool = True) -> None:
        """A run of `size` input elements took `seconds`, undisturbed if it was `on_loop`."""
        bucket = self._buckets.get(size.bit_length())
        self._costs.record(size, seconds)
        if bucket is None:
            self._buckets[size.bit_length()] = _Bucket(seconds)
            return
        if on_loop and not bucket.inline and seconds < bucket.seconds:
            bucket.seconds = seconds
        else:
            # One preempted run must not push a tiny model off the loop: it counts double at most.
            shown = min(seconds, 2 * bucket.seconds + 10e-6)
            bucket.seconds += _WEIGHT * (shown - bucket.seconds)

    def rows_worth(self, row_size: int, most: int) -> int:
        """How many rows of `row_size` elements, `most` at most, are worth joining in one batch."""
        return self._costs.rows_worth(row_size, most)

    def expected_s(self, size: int) -> float | None:
        """The expected time of a run, or None while nothing was measured."""
        at = size.bit_length()
        known = self._buckets.get(at)
        if known is not None:
            return known.seconds
        smaller = [seen for seen in self._buckets if seen < at]
        if smaller:
            nearest = max(smaller)
            return self._buckets[nearest].seconds * 2.0 ** (at - nearest)
        return self._buckets[min(self._buckets)].seconds if self._buckets else None

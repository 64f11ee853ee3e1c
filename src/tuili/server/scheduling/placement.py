"""Placement: where to run a batch, and how large it should be, by measured time.

A thread hop costs about 20 us, so a model that takes 30 us is better run where the request is. The
time is learnt per power of two of the input's size; an unseen size is extrapolated linearly from
the nearest smaller one, so that one huge request does not stop the loop to find out.

A run beside the loop looks longer than it is, because it waits for the interpreter's lock before
and after. So what runs there, and might be quick, is tried on the loop once in a while; a time
measured on the loop counts more than any measured beside it.

Joining requests pays as long as the time per element falls with the size of the batch: much for a
tiny model, whose time is mostly the call, and not at all for one that is bound by memory or
arithmetic, where it would only make the first wait for the last.
"""

from __future__ import annotations

from typing import Final

import msgspec

_WEIGHT: Final = 0.2
# Apart, so that a model near the limit does not change sides all the time.
_STAY_INLINE_S: Final = 150e-6
_BECOME_INLINE_S: Final = 100e-6
_TRY_BELOW_S: Final = 1e-3
_TRY_EVERY: Final = 32
# A larger size must save this share of the time per element.
_WORTH_SAVING: Final = 0.05
_LOOK_AGAIN_EVERY: Final = 64
# What a batch costs beside its run: queue, join, split, statistics.
_BATCH_OVERHEAD_S: Final = 10e-6


class _Bucket(msgspec.Struct):
    """What is known of runs of about one size."""

    seconds: float
    cost: float  # seconds per element
    inline: bool = False
    beside: int = 0


class Placement:
    """Learns how long a model takes and says where to run the next batch."""

    def __init__(self, *, allowed: bool = True) -> None:
        self._allowed = allowed
        self._buckets: dict[int, _Bucket] = {}
        self._asked = 0

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
        cost = (seconds + _BATCH_OVERHEAD_S) / max(size, 1)
        if bucket is None:
            self._buckets[size.bit_length()] = _Bucket(seconds, cost)
            return
        bucket.cost += _WEIGHT * (min(cost, 2 * bucket.cost) - bucket.cost)
        if on_loop and not bucket.inline and seconds < bucket.seconds:
            bucket.seconds = seconds
        else:
            # One preempted run must not push a tiny model off the loop: it counts double at most.
            shown = min(seconds, 2 * bucket.seconds + 10e-6)
            bucket.seconds += _WEIGHT * (shown - bucket.seconds)

    def rows_worth(self, row_size: int, most: int) -> int:
        """How many rows of `row_size` elements, `most` at most, are worth joining in one batch.

        The smallest size that is nearly as good as the best one seen, as some models gain nothing
        from two rows and much from eight. Sizes not seen yet are tried one step at a time while
        they get better; now and then a larger one is tried again.
        """
        self._asked += 1
        first = max(row_size, 1).bit_length()
        last = first + most.bit_length()
        seen = [at for at in range(first, last + 1) if at in self._buckets]
        if not seen:
            at = first + 1
        else:
            limit = min(self._buckets[at].cost for at in seen) * (1 + _WORTH_SAVING)
            at = next(at for at in seen if self._buckets[at].cost <= limit)
            larger = [size for size in seen if size > at]
            if not larger:
                at += 1
            elif self._asked % _LOOK_AGAIN_EVERY == 0:
                at = larger[self._asked // _LOOK_AGAIN_EVERY % len(larger)]
        return min(max(((1 << at) - 1) // max(row_size, 1), 1), most)

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

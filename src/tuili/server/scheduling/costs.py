"""Costs: what an element takes by the size of its batch, and so how much is worth joining.

Joining requests pays as long as the time per element falls with the size of the batch: much for a
tiny model, whose time is mostly the call, and not at all for one that is bound by memory or
arithmetic, where it would only make the first wait for the last.
"""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.2
# A larger size must save this share of the time per element.
_WORTH_SAVING: Final = 0.05
# Another size is tried again after so many batches, later and later while nothing changes: all
# that wait behind a larger one wait longer, and must be too few to make the 99th percentile.
_LOOK_AGAIN: Final = 128
_LOOK_AGAIN_MOST: Final = 8192
_LOOKS: Final = 2  # batches of that size
_NEXT: Final = 2  # which of the larger sizes: a much larger one would take too long
_OLD: Final = 32  # batches; what was measured before them is forgotten once there is news of it
_HOLDS: Final = 8  # questions that an answer holds for: to find it takes longer than a tiny run
# What a batch costs beside its run: queue, join, split, statistics.
_BATCH_OVERHEAD_S: Final = 10e-6
# What a request costs beside its run: where its row takes less of a batch, nobody gains by being
# left out of it.
_REQUEST_S: Final = 20e-6


class Costs:
    """Seconds per element, learnt per power of two of the size."""

    def __init__(self, weight: float = _WEIGHT) -> None:
        """`weight` is the share of a new time, as soon as there are enough for a mean."""
        self._weight = weight
        self._seconds: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._recorded = 0
        self._last: dict[int, int] = {}
        self._asked = 0
        self._every = _LOOK_AGAIN
        self._looks = 0
        self._look_at, self._looks_left = 0, 0
        self._best = 0
        self._answer, self._question, self._holds = 0, (0, 0), 0

    def record(self, size: int, seconds: float) -> None:
        """A run of `size` elements took `seconds` of the machine."""
        at = size.bit_length()
        cost = (seconds + _BATCH_OVERHEAD_S) / max(size, 1)
        number = self._counts.get(at, 0) + 1
        if number == 1:
            self._holds = 0
        self._recorded += 1
        if self._recorded - self._last.get(at, self._recorded) > _OLD:
            number = 1
        self._counts[at], self._last[at] = number, self._recorded
        known = self._seconds.get(at, cost)
        # One run that was disturbed counts double at most.
        self._seconds[at] = known + max(self._weight, 1 / number) * (min(cost, 2 * known) - known)

    def least(self, size: int) -> float | None:
        """Of an element in the best batch of up to `size`; None while nothing was measured."""
        if not self._seconds:
            return None
        at = size.bit_length()
        within = [cost for seen, cost in self._seconds.items() if seen <= at]
        return min(within) if within else self._seconds[min(self._seconds)]

    def seconds(self, size: int) -> float:
        """What a batch of `size` takes, by the nearest size that was measured; 0.0: none was."""
        if not self._seconds:
            return 0.0
        at = size.bit_length()
        return size * self._seconds[min(self._seconds, key=lambda seen: abs(seen - at))]

    def rows_worth(self, row_size: int, most: int) -> int:
        """How many rows of `row_size` elements, `most` at most, are worth joining in one batch.

        The smallest size that is nearly as good as the best one seen, as some models gain nothing
        from two rows and much from eight. Sizes not seen yet are tried one step at a time while
        they get better; now and then another one is tried again.
        """
        self._asked += 1
        if self._holds and self._question == (row_size, most):
            self._holds -= 1
            return self._answer
        first = max(row_size, 1).bit_length()
        last = first + most.bit_length()
        seen = [at for at in range(first, last + 1) if at in self._seconds]
        if not seen:
            at = first
        else:
            limit = min(self._seconds[at] for at in seen) * (1 + _WORTH_SAVING)
            at = next(at for at in seen if self._seconds[at] <= limit)
            at = max([at, *(each for each in seen if self._seconds[each] * row_size < _REQUEST_S)])
            if at == seen[-1]:
                at += 1
            elif self._looks_again(at, first, seen):
                return _rows_of(self._look_at, row_size, most)
            self._holds, self._question = _HOLDS, (row_size, most)
        self._answer = _rows_of(at, row_size, most)
        return self._answer

    def _looks_again(self, best: int, first: int, seen: list[int]) -> bool:
        """Whether a verdict is questioned; less and less often while it stands."""
        if self._looks_left and first <= self._look_at <= seen[-1]:
            self._looks_left -= 1
            return True
        if abs(best - self._best) > 1:  # next to each other, noise decides
            self._every, self._asked = _LOOK_AGAIN, 1
        self._best = best
        if self._asked < self._every:
            return False
        self._asked = 0
        self._looks += 1
        # In turns a larger one, which makes others wait, and the next smaller, which does not.
        larger = [size for size in seen if size > best][:_NEXT]
        smaller = best > first and self._looks % 2
        self._look_at = best - 1 if smaller else larger[self._looks // 2 % len(larger)]
        self._looks_left = _LOOKS - 1
        self._every = min(2 * self._every, _LOOK_AGAIN_MOST)
        return True


def _rows_of(at: int, row_size: int, most: int) -> int:
    """How many rows a batch of size class `at` has at most."""
    return min(max(((1 << at) - 1) // max(row_size, 1), 1), most)

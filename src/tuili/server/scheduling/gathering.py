"""Gather: whom a batch waits for before it runs on the core that the server has, its only one.

Theory of operation
- A batch costs the same whatever its size: a turn of queue, run, split and statistics, or two
  switches between processes where it crosses to a model host. That is as much as all other work for
  several requests. On one core nothing overlaps either, as nobody reads while the model runs. Left
  alone, clients fall into two halves that take turns for ever, one being read while the other one
  is answered, and every batch is paid for half of them.
- So a batch waits while fewer are here than came together lately, and somebody came a moment ago:
  a client that was woken by its answer asks again after about a wake-up. Nobody sleeps meanwhile;
  the sockets are looked at again and again.
- When nobody came, one fewer is expected from then on, so that a single client never waits. One
  batch in many waits for whoever may come: that is how more of them are noticed. It is one in ever
  more while there are none.
"""

from __future__ import annotations

from typing import Final

_QUIET_S: Final = 80e-6  # a wake-up of a sleeping process takes 45 to 70 us
_TRY_EVERY: Final = 32  # batches; twice as many after a try that found nobody
_TRY_EVERY_MOST: Final = 8192


class Gather:
    """Told how many requests wait, and the time, it says whether to look for more."""

    def __init__(self, most: int) -> None:
        """`most` requests fit in a batch."""
        self._most = most
        self._expected = 1
        self._batches = 1  # since the last try
        self._try_every = _TRY_EVERY
        self._seen = 0
        self._until = 0.0

    def holds(self, waiting: int, now: float) -> bool:
        """Whether these requests wait for others; they leave when it is false."""
        trying = self._batches >= self._try_every
        expected = self._expected
        if waiting < (self._most if trying else min(expected, self._most)):
            if waiting > self._seen:
                self._seen, self._until = waiting, now + _QUIET_S
            if now < self._until:
                return True
        self._expected = max(waiting, expected - 1)
        if waiting > expected:
            self._try_every = _TRY_EVERY
        elif trying:
            self._try_every = min(2 * self._try_every, _TRY_EVERY_MOST)
        self._batches = 1 if trying else self._batches + 1
        self._seen = 0
        return False

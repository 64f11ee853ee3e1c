"""When requests are due: at once (closed loop), or at moments that no answer can delay (open loop).

A closed loop sends the next request when an answer came, so a slow server is asked less and looks
better than it is ("coordinated omission"). An open loop fixes the moments beforehand, and latency
counts from the moment a request was due, not from when it could be sent.
"""

from __future__ import annotations

import random
from typing import Protocol


class Arrivals(Protocol):
    """The moments of an open loop, seconds from its start, ascending."""

    def next(self) -> float:
        """The next moment."""
        ...


class Poisson:
    """Independent clients: exponential gaps, `rate` a second on average."""

    def __init__(self, rate: float, seed: int = 0) -> None:
        self._rate = rate
        self._random = random.Random(seed)
        self._at = 0.0

    def next(self) -> float:
        """The next moment."""
        self._at += self._random.expovariate(self._rate)
        return self._at


class Constant:
    """A metronome: `rate` a second, all gaps equal."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._count = 0

    def next(self) -> float:
        """The next moment."""
        self._count += 1
        return self._count / self._rate

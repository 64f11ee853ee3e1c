"""RestartPolicy: when a model host that died is started again, and when not for a while."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """Back-off and circuit breaker of one host; seconds."""

    first_delay_s: float = 0.05
    max_delay_s: float = 10.0
    deaths_in_a_row: int = 6
    window_s: float = 60.0
    deaths_in_window: int = 60
    cool_down_s: float = 30.0
    healthy_after_s: float = 20.0


class RestartPolicy:
    """Counts deaths; told the time, it says how long to wait.

    A host that answered since its last death starts anew at once; one that did not waits twice as
    long each time. The breaker opens after too many deaths in a row or in a window: then the model
    is not ready, waiting requests are refused, and one attempt is made after the cool-down.
    """

    def __init__(self, limits: RestartLimits | None = None) -> None:
        self.limits = limits or RestartLimits()
        self.open = False
        self.deaths = 0
        self.in_a_row = 0
        self._recent: deque[float] = deque()
        self._up_since: float | None = None

    def died(self, now: float) -> float:
        """The host died; returns the seconds until its next start."""
        limits = self.limits
        self.deaths += 1
        if self._up_since is not None and now - self._up_since >= limits.healthy_after_s:
            # It had nothing to answer, but it lived.
            self.in_a_row = 0
        self._up_since = None
        self.in_a_row += 1
        self._recent.append(now)
        while self._recent[0] < now - limits.window_s:
            self._recent.popleft()
        too_many = len(self._recent) >= limits.deaths_in_window
        if self.open or too_many or self.in_a_row >= limits.deaths_in_a_row:
            self.open = True
            return limits.cool_down_s
        return min(limits.first_delay_s * 2 ** (self.in_a_row - 1), limits.max_delay_s)

    def started(self, now: float) -> None:
        """The host is up with its model loaded."""
        self._up_since = now

    def served(self) -> None:
        """The host answered a request: deaths in a row are forgiven, an open breaker closes."""
        self.in_a_row = 0
        if self.open:
            self.open = False
            self._recent.clear()

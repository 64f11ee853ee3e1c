"""RestartPolicy: when a model host that died is started again, and when not for a while."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """Back-off and circuit breaker of one host; seconds."""

    first_delay_s: float = 0.05
    max_delay_s: float = 10.0
    window_s: float = 60.0
    deaths_in_window: int = 6
    cool_down_s: float = 30.0


class RestartPolicy:
    """Counts deaths; told the time, it says how long to wait.

    The breaker opens after `deaths_in_window` deaths within `window_s`: then the model is not
    ready, waiting requests are refused at once, and one new attempt is made after `cool_down_s`.
    """

    def __init__(self, limits: RestartLimits | None = None) -> None:
        self.limits = limits or RestartLimits()
        self.open = False
        self.deaths = 0
        self._recent: deque[float] = deque()

    def died(self, now: float) -> float:
        """The host died; returns the seconds until its next start."""
        limits = self.limits
        self.deaths += 1
        self._recent.append(now)
        while self._recent and self._recent[0] < now - limits.window_s:
            self._recent.popleft()
        if self.open or len(self._recent) >= limits.deaths_in_window:
            self.open = True
            return limits.cool_down_s
        return min(limits.first_delay_s * 2 ** (len(self._recent) - 1), limits.max_delay_s)

    def served(self, now: float) -> None:
        """The host answered a request: an open breaker closes, and old deaths are forgiven."""
        if self.open:
            self.open = False
            self._recent.clear()

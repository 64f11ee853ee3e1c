"""Forecast: how many requests per second to expect, from what a day usually looks like.

A day is cut into bins. Each bin keeps a running mean of the rates seen in it on former days
(simple exponential smoothing per season). What is expected for a moment ahead is the usual rate of
its bin, scaled by how today compares with the usual day so far, as in multiplicative
Holt-Winters (Winters 1960) with a level but no trend.
"""

from __future__ import annotations

from typing import Any, Final

_DAY_WEIGHT: Final = 0.5
_LEVEL_WEIGHT: Final = 0.3
_LEVEL_BOUNDS: Final = (0.2, 5.0)


class Forecast:
    """Learns a season of rates; moments are seconds of any clock that does not jump."""

    def __init__(self, season_s: float = 86_400.0, bins: int = 288) -> None:
        self._season_s = season_s
        self._bin_s = season_s / bins
        self._usual: list[float | None] = [None] * bins
        self._level = 1.0
        self._at: int | None = None
        self._count = 0

    def arrived(self, now: float, requests: int = 1) -> None:
        """Requests arrived."""
        self._move_to(now)
        self._count += requests

    def expected(self, moment: float, now: float) -> float | None:
        """Requests per second expected around `moment`; None while nothing is known of it."""
        self._move_to(now)
        usual = self._usual[int(moment // self._bin_s) % len(self._usual)]
        return None if usual is None else usual * self._level

    def peak(self, until: float, now: float) -> float:
        """The highest rate expected from now until then; 0.0 while nothing is known."""
        steps = max(int((until - now) // self._bin_s) + 1, 1)
        moments = [min(now + at * self._bin_s, until) for at in range(steps + 1)]
        return max(self.expected(moment, now) or 0.0 for moment in moments)

    def dump(self) -> dict[str, Any]:
        """What was learnt, for a file."""
        return {"season_s": self._season_s, "usual": self._usual, "level": self._level}

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Forecast:
        """What was learnt before."""
        usual = [None if rate is None else float(rate) for rate in saved["usual"]]
        found = cls(float(saved["season_s"]), len(usual))
        found._usual, found._level = usual, float(saved["level"])
        return found

    def _move_to(self, now: float) -> None:
        """Close the bins that have passed; those in which nothing came count as empty."""
        at = int(now // self._bin_s)
        if self._at is None:
            self._at = at
        while self._at < at:
            self._close(self._at, self._count / self._bin_s)
            self._count = 0
            # A gap of more than a season teaches nothing more.
            self._at = max(self._at + 1, at - len(self._usual))

    def _close(self, at: int, rate: float) -> None:
        index = at % len(self._usual)
        usual = self._usual[index]
        if usual is None:
            self._usual[index] = rate
            return
        if usual > 0:
            low, high = _LEVEL_BOUNDS
            ratio = min(max(rate / usual, low), high)
            self._level += _LEVEL_WEIGHT * (ratio - self._level)
        self._usual[index] = usual + _DAY_WEIGHT * (rate - usual)

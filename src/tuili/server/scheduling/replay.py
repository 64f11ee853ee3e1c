"""Replay: in which order, and how many at a time, jobs run that an earlier server left unfinished.

A job that ends the server would do so after each restart, and take others with it. So jobs under
which servers ended twice run alone, after all others, and are given up after some more such ends.
A job that finds no room or no model waits and is tried again, until patience is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_FIRST_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """`wide`: most at a time; `suspect`, `hopeless`: starts without an end."""

    wide: int = 16
    suspect: int = 2
    hopeless: int = 5
    longest_delay_s: float = 15.0
    patience_s: float = 600.0


@dataclass(slots=True)
class _Waiting:
    id: str
    starts: int
    at: float
    tries: int = 0


class Replay:
    """The jobs that are to run again; told the time."""

    def __init__(
        self, left: Sequence[tuple[str, int]], now: float, limits: ReplayLimits | None = None
    ) -> None:
        """`left`: ids, the oldest first, and how often each began without an end."""
        self._limits = limits = limits or ReplayLimits()
        self._until = now + limits.patience_s
        rows = [_Waiting(id_, starts, now) for id_, starts in left]
        self.hopeless = [row.id for row in rows if row.starts >= limits.hopeless]
        rows = [row for row in rows if row.starts < limits.hopeless]
        # Sorting is stable: of equal ones the oldest first.
        self._waiting = sorted(rows, key=self._rank)
        self._running: dict[str, _Waiting] = {}

    @property
    def over(self) -> bool:
        """Whether all of them ended."""
        return not (self._waiting or self._running)

    def due(self, now: float) -> list[str]:
        """Those to begin now."""
        found: list[str] = []
        for row in list(self._waiting):
            suspect = row.starts >= self._limits.suspect
            if suspect and (self._running or self._waiting[0] is not row):
                break
            if len(self._running) >= (1 if suspect else self._limits.wide):
                break
            if row.at <= now:
                self._waiting.remove(row)
                self._running[row.id] = row
                found.append(row.id)
        return found

    def next_at(self, now: float) -> float | None:
        """When to ask again if none ends before, of which `due` has just been asked."""
        return min((row.at for row in self._waiting if row.at > now), default=None)

    def ended(self, id_: str) -> None:
        """It is answered, cancelled, or was not begun after all."""
        self._running.pop(id_, None)

    def refused(self, id_: str, now: float) -> bool:
        """There was no room or no model for it: whether it is tried again."""
        row = self._running.pop(id_, None)
        if row is None or now >= self._until:
            return False
        row.at = now + min(_FIRST_DELAY_S * 2.0**row.tries, self._limits.longest_delay_s)
        row.tries += 1
        self._waiting.append(row)
        self._waiting.sort(key=self._rank)
        return True

    def _rank(self, row: _Waiting) -> int:
        """Those under suspicion come last, and the worst of them at the very end."""
        return max(row.starts, self._limits.suspect - 1)

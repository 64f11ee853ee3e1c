"""Gain: whether more instances do more, or share what there is.

Instances that wait (for a disk, another service, a device of their own) do more the more there
are. Those that compute share cores: beyond them each run only takes longer, which looks like more
load. So what a number of busy instances does in a second is compared with what the number before
did, and where more of them bring next to nothing the number before is the limit for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Instances that run for less of their time do not show what they could do at once.
_BUSY: Final = 0.6
# What an addition must bring, as a share of what it would if all were independent.
_LEAST: Final = 0.3
# So many busy looks are needed to say that an addition brings nothing; meanwhile none is added.
_LOOKS: Final = 3
_RETRY_S: Final = 120.0
_MOST_RETRY_S: Final = 3600.0


@dataclass(slots=True)
class _Count:
    """What was seen of a number of instances while they were busy."""

    instances: int
    looks: int = 0
    requests: int = 0
    run_s: float = 0.0

    @property
    def capacity(self) -> float:
        """Requests a second that all of them together can do."""
        return self.instances * self.requests / self.run_s if self.run_s else 0.0


class Gain:
    """Judges a growing number of instances by what they did."""

    def __init__(self) -> None:
        self._now = _Count(0)
        self._before: _Count | None = None
        self._ceiling, self._until = 0, 0.0
        self._retry_s = _RETRY_S

    def ran(self, instances: int, requests: int, run_s: float, lasted_s: float, now: float) -> None:
        """In `lasted_s` seconds so many instances answered `requests`, in `run_s` of runs."""
        if instances != self._now.instances:
            grew = instances > self._now.instances and self._now.looks
            self._before = self._now if grew else None
            self._now = _Count(instances)
        if not requests or run_s < _BUSY * instances * lasted_s:
            return
        seen = self._now
        seen.looks, seen.requests, seen.run_s = (
            seen.looks + 1,
            seen.requests + requests,
            seen.run_s + run_s,
        )
        if self._before is None or seen.looks < _LOOKS:
            return
        if self._brings_little():
            self._ceiling, self._until = self._before.instances, now + self._retry_s
            self._retry_s = min(2 * self._retry_s, _MOST_RETRY_S)
        else:
            self._retry_s = _RETRY_S
        self._before = None

    def most(self, now: float) -> int | None:
        """The most instances that are worth having; None for any number."""
        if now < self._until:
            return self._ceiling
        if self._before is not None and self._brings_little():
            return self._now.instances
        return None

    def _brings_little(self) -> bool:
        before, seen = self._before, self._now
        assert before is not None
        if not seen.looks:
            return False
        brought = seen.capacity / before.capacity - 1
        return brought < _LEAST * (seen.instances / before.instances - 1)

"""Remembered: what belongs to each open sequence, in what has no queue of sequences itself."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from tuili.server.scheduling.controls import SequenceId

What = TypeVar("What")


class Remembered(Generic[What]):
    """Something of every sequence that is under way; forgotten at its end or when idle."""

    def __init__(self, idle_s: float = 600.0) -> None:
        self._idle_s = idle_s
        self._of: OrderedDict[SequenceId, tuple[What, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def get(self, sequence: SequenceId, now: float) -> What | None:
        """What is remembered of a sequence; None where it is none that is under way."""
        self.forget_idle(now)
        found = self._of.get(sequence)
        return found[0] if found else None

    def keep(self, sequence: SequenceId, what: What, now: float, *, ends: bool) -> None:
        """A request of a sequence came."""
        self._of.pop(sequence, None)
        if not ends:
            self._of[sequence] = (what, now)

    def forget(self, sequence: SequenceId) -> None:
        """A sequence goes on elsewhere, or not at all."""
        self._of.pop(sequence, None)

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._of.clear()

    def forget_idle(self, now: float) -> None:
        """Sequences that nobody goes on with are under way no more."""
        while self._of:
            key, (_, seen) = next(iter(self._of.items()))
            if now - seen < self._idle_s:
                return
            del self._of[key]

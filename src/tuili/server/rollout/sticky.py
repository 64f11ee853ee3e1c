"""Sticky: what was dealt out is remembered: sequences keep their variant, users count once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_MOST_USERS: Final = 200_000


class Sequences:
    """The variant of every sequence that is under way; forgotten at its end or when idle."""

    def __init__(self, idle_s: float = 600.0) -> None:
        self._idle_s = idle_s
        self._variants: OrderedDict[object, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._variants)

    def variant_of(self, sequence: object, now: float) -> str:
        """The variant that a sequence has, or ""."""
        self._forget_idle(now)
        found = self._variants.get(sequence)
        return found[0] if found else ""

    def keep(self, sequence: object, variant: str, now: float, *, ends: bool) -> None:
        """A request of a sequence went to `variant`."""
        self._variants.pop(sequence, None)
        if not ends:
            self._variants[sequence] = (variant, now)

    def move(self, variant: str) -> int:
        """Forget all sequences of a variant that is gone; how many there were."""
        gone = [key for key, (each, _) in self._variants.items() if each == variant]
        for key in gone:
            del self._variants[key]
        return len(gone)

    def _forget_idle(self, now: float) -> None:
        while self._variants:
            key, (_, seen) = next(iter(self._variants.items()))
            if now - seen < self._idle_s:
                return
            del self._variants[key]


class Users:
    """Users that were counted in a step; memory is bounded, and then nobody new is counted."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def is_new(self, user: str) -> bool:
        """Whether `user` is seen for the first time."""
        key = hash(user)
        if key in self._seen or len(self._seen) >= _MOST_USERS:
            return False
        self._seen.add(key)
        return True

    def clear(self) -> None:
        """A new step."""
        self._seen.clear()

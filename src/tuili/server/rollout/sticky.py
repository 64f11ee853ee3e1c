"""Sticky: what was dealt out is remembered, so that users count once."""

from __future__ import annotations

from typing import Final

_MOST_USERS: Final = 200_000


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

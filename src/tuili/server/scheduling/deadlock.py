"""Deadlock: which processes wait for each other, so that none of them ever goes on."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import TypeVar

Process = TypeVar("Process", bound=Hashable)


def deadlocked(waiting: Mapping[Process, Iterable[Collection[Process]]]) -> set[Process]:
    """Those of the `waiting` processes that nothing can free.

    Each waits for all of its needs; a need is met by any one of its processes that goes on.
    """
    dead = set(waiting)
    while True:
        free = {
            process
            for process in dead
            if all(any(one not in dead for one in need) for need in waiting[process])
        }
        if not free:
            return dead
        dead -= free

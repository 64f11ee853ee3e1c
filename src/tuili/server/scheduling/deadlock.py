"""Deadlock: which processes wait for each other, so that none of them ever goes on."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

Process = TypeVar("Process", bound=Hashable)
Stuck = Container[object]


class Need(Protocol):
    """Something that a process waits for; `why` it may be in vain."""

    why: ClassVar[str]

    def unmet(self, stuck: Stuck) -> bool:
        """Whether it is never met if the `stuck` processes never go on."""
        ...

    def awaited(self) -> Iterable[object]:
        """Those that may have to go on."""
        ...


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these processes must go on."""

    processes: Iterable[object]
    why: ClassVar[str] = (
        "all of its instances wait for answers that wait for this one; models that call each other "
        "in a ring need more of them in instance_group, one for each call within a call and for "
        "each request at a time"
    )

    def unmet(self, stuck: Stuck) -> bool:
        """Whether none of them does."""
        return all(process in stuck for process in self.processes)

    def awaited(self) -> Iterable[object]:
        """All of them."""
        return self.processes


class LoadOver(AnyOf):
    """The load of a model must come to its end."""

    why: ClassVar[str] = (
        "its load waits for this one, directly or by others; of models that load each other, one "
        "has to do it where it answers requests, or nobody"
    )


@dataclass(frozen=True, slots=True)
class Shortage:
    """So much of something is lacking; its holders give back what they have by going on."""

    missing: int
    holders: Sequence[tuple[object, int]]

    def lasts(self, stuck: Stuck) -> bool:
        """Whether too little is ever given back."""
        return sum(amount for who, amount in self.holders if who not in stuck) < self.missing


@dataclass(frozen=True, slots=True)
class Turns:
    """The turn of one of these processes must come, for which all of its shortages must end."""

    turns: Sequence[tuple[object, Sequence[Shortage]]]
    why: ClassVar[str] = (
        "the resources that it needs (rate_limiter in instance_group) are held by runs that wait "
        "for this one; a model that calls another needs as much of them besides its own "
        "(--rate-limit-resource), or should claim none"
    )

    def unmet(self, stuck: Stuck) -> bool:
        """Whether none of them ever comes."""
        return all(
            process in stuck or any(each.lasts(stuck) for each in lacks)
            for process, lacks in self.turns
        )

    def awaited(self) -> Iterable[object]:
        """The processes, and who holds what they lack."""
        for process, lacks in self.turns:
            yield process
            yield from (who for each in lacks for who, _ in each.holders)


def deadlocked(waiting: Mapping[Process, Iterable[Need]]) -> set[Process]:
    """Those of the `waiting` processes that nothing can free; each waits for all of its needs."""
    dead = set(waiting)
    while True:
        free = {
            process for process in dead if not any(need.unmet(dead) for need in waiting[process])
        }
        if not free:
            return dead
        dead -= free


def ring(
    start: Process, waiting: Mapping[Process, Iterable[Need]], dead: Container[object]
) -> list[object]:
    """Some of the `dead`, each waiting for the next, from `start` on to one that was there before.

    It begins with that one, and so is closed.
    """
    path: list[object] = [start]
    while True:
        needs = waiting[path[-1]]  # pyright: ignore[reportArgumentType] - a dead one waits
        found = next(
            each for need in needs if need.unmet(dead) for each in need.awaited() if each in dead
        )
        if found in path:
            return [*path[path.index(found) :], found]
        path.append(found)

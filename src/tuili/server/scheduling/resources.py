"""Resources: what instances of all models share, and whose turn it is to have it.

As Triton's rate limiter: an instance names amounts of resources that it needs to run and a
priority. There is as much of a resource as the most demanding instance needs, unless the operator
says how much. Who waits is served by the number of runs it will have had, times its priority: an
instance of priority 2 gets half the turns of one of priority 1. What the first in that
order needs is kept for it, so that many small claims cannot starve a large one; who needs nothing
of that passes by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tuili.errors import InvalidModel
from tuili.server.scheduling.deadlock import Shortage


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run of an instance needs: amounts by resource; twice the priority, half the turns."""

    amounts: Mapping[str, int] = field(default_factory=dict[str, int])
    priority: int = 1


class Turn:
    """An instance's place among those that share resources."""

    def __init__(
        self, resources: Resources, claim: Claim, wake: Callable[[], None], owner: object
    ) -> None:
        self.claim = claim
        self.wake = wake
        self.owner = owner
        self.runs = 0
        self.has = False  # granted, and not given back yet
        self.held = False  # granted, and not used yet
        self.waits = False
        self._resources = resources

    def take(self) -> bool:
        """Whether it may run now; if not, it waits, and `wake` is called when it may."""
        if not self.held and not self.waits:
            self._resources.ask(self)
        return self.held

    def lacks(self) -> list[Shortage]:
        """What there is too little of for its turn to come."""
        return [] if self.held else self._resources.lacking(self)

    def use(self) -> None:
        """It runs on what was granted."""
        self.held = False
        self.runs += 1

    def done(self, *, again: bool = False) -> None:
        """Its run has ended; `again`: it has more to run, and competes with those that wait.

        Otherwise two that always have work would take turns, whatever their priorities.
        """
        self._resources.give_back(self, again=again)

    def drop(self) -> None:
        """It has nothing to run: it waits no more, and gives back what it holds."""
        self.waits = False
        if self.held:
            self.held = False
            self._resources.give_back(self)
        else:
            self._resources.forget(self)


class Resources:
    """All resources of a server; `limits` are the amounts that the operator fixed."""

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self._limits = dict(limits or {})
        self._turns: dict[int, Turn] = {}
        self._used: dict[str, int] = {}
        self._waiting: list[Turn] = []

    def join(self, claim: Claim, wake: Callable[[], None], owner: object = None) -> Turn:
        """A place for an instance, of a process; InvalidModel when it could never run."""
        for name, amount in claim.amounts.items():
            if amount > self._limits.get(name, amount):
                raise InvalidModel(
                    f"an instance needs {amount} of resource {name!r}, but there are only "
                    f"{self._limits[name]}"
                )
        turn = Turn(self, claim, wake, owner)
        self._turns[id(turn)] = turn
        return turn

    def leave(self, turn: Turn) -> None:
        """An instance is gone."""
        turn.drop()
        self._turns.pop(id(turn), None)
        self._grant()

    def available(self, name: str) -> int:
        """How much of a resource there is altogether."""
        if name in self._limits:
            return self._limits[name]
        return max((t.claim.amounts.get(name, 0) for t in self._turns.values()), default=0)

    def lacking(self, turn: Turn) -> list[Shortage]:
        """What there is too little of for a turn, and for those before it that keep it waiting."""
        needed = dict(turn.claim.amounts)
        before = [each for each in self._waiting if _order(each) < _order(turn)]
        for each in sorted(before, key=_order, reverse=True):
            amounts = each.claim.amounts
            if not needed.keys().isdisjoint(amounts):
                needed |= {name: max(needed.get(name, 0), amounts[name]) for name in amounts}
        found: list[Shortage] = []
        for name, amount in needed.items():
            missing = amount - (self.available(name) - self._used.get(name, 0))
            if missing > 0:
                found.append(Shortage(missing, self._holders(name)))
        return found

    def _holders(self, name: str) -> list[tuple[object, int]]:
        return [
            (each.owner, each.claim.amounts[name])
            for each in self._turns.values()
            if each.has and name in each.claim.amounts
        ]

    def ask(self, turn: Turn) -> None:
        """Grant at once if nobody is before it and there is enough, else let it wait."""
        turn.waits = True
        self._waiting.append(turn)
        self._grant(asking=turn)

    def give_back(self, turn: Turn, *, again: bool = False) -> None:
        """What a turn had is free again; `again`: it is asked for once more."""
        turn.has = False
        for name, amount in turn.claim.amounts.items():
            self._used[name] -= amount
        if again:
            self.ask(turn)
        else:
            self._grant()

    def forget(self, turn: Turn) -> None:
        """A turn waits no more."""
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._grant()

    def _grant(self, asking: Turn | None = None) -> None:
        awaited: set[str] = set()
        for turn in sorted(self._waiting, key=_order):
            amounts = turn.claim.amounts
            if not awaited.isdisjoint(amounts) or not self._fits(turn.claim):
                awaited.update(amounts)
                continue
            self._waiting.remove(turn)
            for name, amount in amounts.items():
                self._used[name] = self._used.get(name, 0) + amount
            turn.waits, turn.has, turn.held = False, True, True
            if turn is not asking:
                turn.wake()

    def _fits(self, claim: Claim) -> bool:
        return all(
            self._used.get(name, 0) + amount <= self.available(name)
            for name, amount in claim.amounts.items()
        )


def _order(turn: Turn) -> tuple[int, int]:
    # Of equals the more important one, or it would be a run short of its share.
    return (turn.runs + 1) * turn.claim.priority, turn.claim.priority

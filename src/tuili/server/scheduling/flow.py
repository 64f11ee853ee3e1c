"""Flow: one request in a Dag: which steps may start, what is skipped, when it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from tuili.server.scheduling.conditions import Scalar
from tuili.server.scheduling.dag import Dag

# Gives the only element of a tensor that is there; raises when it has not exactly one.
ValueOf = Callable[[str], Scalar]


def _no_conditions(tensor: str) -> Scalar:
    raise AssertionError(f"an ensemble without conditions asked for the value of {tensor!r}")


class Flow:
    """One request's way through the steps."""

    def __init__(
        self, dag: Dag, outputs: Iterable[str], value_of: ValueOf = _no_conditions
    ) -> None:
        self._dag = dag
        self._wanted = set(outputs)
        self._needed = dag.needed_for(self._wanted)
        self._value_of = value_of
        self._there: set[str] = set()
        self._absent: set[str] = set()
        self._settled: set[int] = set()
        self._stands_for: dict[str, str] = {}

    def arrived(self, tensors: Iterable[str], absent: Iterable[str] = ()) -> list[int]:
        """These tensors are there now, or never will be; the steps that can start because of it."""
        started: list[int] = []
        waiting = deque(tensors)
        self._there.update(waiting)
        self._absent.update(never := list(absent))
        waiting.extend(never)
        while waiting:
            tensor = waiting.popleft()
            for name in self._dag.merged_in.get(tensor, ()):
                if self._merge(name):
                    waiting.append(name)
            for at in self._dag.users.get(tensor, ()):
                if at in self._needed and at not in self._settled:
                    waiting.extend(self._decide(at, started))
        return started

    def close(self) -> None:
        """Nobody asks any more: let go of what gives the values, which may hold this flow."""
        self._value_of = _no_conditions

    def branch(self, value_of: ValueOf) -> Flow:
        """A flow of its own that begins with what is there now."""
        flow = Flow(self._dag, self._wanted, value_of)
        flow.inherit(self)
        return flow

    def inherit(self, parent: Flow) -> list[int]:
        """What is there in `parent` is there too; the steps that can start because of it here.

        Steps that `parent` has started or skipped are not decided again.
        """
        self._settled |= parent._settled
        self._stands_for = parent._stands_for | self._stands_for
        return self.arrived(parent._there - self._there, parent._absent - self._absent)

    def source_of(self, tensor: str) -> str:
        """The tensor that holds the data: itself, or what its merge stands for."""
        return self._stands_for.get(tensor, tensor)

    def is_absent(self, tensor: str) -> bool:
        """Whether a tensor is not there and never will be."""
        return tensor in self._absent

    def done(self) -> bool:
        """Whether all wanted outputs are there, or will never be."""
        return self._wanted <= self._there | self._absent

    def missing(self) -> list[str]:
        """The wanted outputs that no step made, as all that could were skipped."""
        return sorted(self._wanted & self._absent)

    def free(self, at: int) -> list[str]:
        """The tensors that nobody needs after step `at` has started."""
        return [
            tensor
            for tensor in set(self._dag.steps[at].waits_for())
            if tensor not in self._wanted
            and tensor not in self._dag.merges
            and not self._dag.merged_in[tensor]
            and self._settled.issuperset(
                user for user in self._dag.users.get(tensor, ()) if user in self._needed
            )
        ]

    def _merge(self, name: str) -> bool:
        """Settle a merge if it can be: the first present source, all before it being absent."""
        if name in self._there or name in self._absent:
            return False
        for source in self._dag.merges[name]:
            if source in self._there:
                self._stands_for[name] = self.source_of(source)
                self._there.add(name)
                return True
            if source not in self._absent:
                return False
        self._absent.add(name)
        return True

    def _decide(self, at: int, started: list[int]) -> list[str]:
        """Start, skip or leave a step; returns the tensors that are absent because of it."""
        step = self._dag.steps[at]
        absent = self._absent - self._dag.optional.get(at, frozenset())
        waits_for = [tensor for tensor in step.waits_for() if tensor not in self._absent - absent]
        skipped = not absent.isdisjoint(waits_for)
        if not skipped:
            if not self._there.issuperset(waits_for):
                return []
            skipped = not all(c.holds(self._value_of(c.tensor)) for c in step.when)
        self._settled.add(at)
        if not skipped:
            started.append(at)
            return []
        self._absent.update(step.makes.values())
        return list(step.makes.values())

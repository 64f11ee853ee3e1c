"""Branch: one request in a Dag with steps that answer any number of times.

Each answer of such a step opens a *branch* of its own, in which the steps after it run. A branch
sees everything that is there where it was opened, and what arrives there later. The nth answers of
two such steps side by side meet in one branch. So a step runs once for each answer that it needs,
and what was made before an answer is there for all of them.

Triton counts the tensors of each name instead and joins equal numbers; where that joins anything,
the outcome is the same. A tensor from before the answers has the number 0 there, and so meets the
first of them only; here it meets all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from tuili.server.scheduling.conditions import Scalar
from tuili.server.scheduling.dag import Dag
from tuili.server.scheduling.flow import Flow

Value = TypeVar("Value")
# Gives what a condition compares: the only element of a value, with the name of its tensor.
ScalarOf = Callable[[str, Value], Scalar]


# Where a branch is among all: the numbers of those that it is in, from the root's on, and its own.
Place = tuple[int, ...]


class Branch(Generic[Value]):
    """Where a request is: what is there, which steps are under way, and what began with them."""

    def __init__(
        self,
        dag: Dag,
        wanted: Iterable[str],
        scalar_of: ScalarOf[Value],
        parent: Branch[Value] | None = None,
        index: int = 0,
    ) -> None:
        """The root without `parent`; else the branch of its steps' answers number `index`."""
        self._dag = dag
        self._wanted = list(wanted)
        self._scalar_of = scalar_of
        self.parent = parent
        self.index = index
        # Those in which something may still come, and those whose answers were not collected.
        self.branches: dict[int, Branch[Value]] = {}
        self._uncollected: dict[int, Branch[Value]] = {}
        self._next = 0
        self._answers: list[object] = []
        # The steps under way, each with the number of answers that it gave.
        self.running: dict[int, int] = {}
        self.answered = False
        # What arrived in it, not where it was opened.
        self.values: dict[str, Value] = {}
        if parent is None:
            self.flow = Flow(dag, self._wanted, self._scalar)
        else:
            self.flow = parent.flow.branch(self._scalar)

    def arrived(
        self, values: Mapping[str, Value], absent: Iterable[str] = ()
    ) -> list[tuple[Branch[Value], int]]:
        """These values are there now, or never will be; the steps that can start, and where."""
        self.values.update(values)
        return self.follow(self.flow.arrived(values, absent))

    def follow(self, ready: Iterable[int]) -> list[tuple[Branch[Value], int]]:
        """The steps that can start here, and those that can in the branches in it because of it."""
        started: list[tuple[Branch[Value], int]] = [(self, step) for step in ready]
        for branch in self.branches.values():
            started += branch.follow(branch.flow.inherit(self.flow))
        return started

    def value(self, tensor: str) -> Value:
        """A value that is there."""
        name = self.flow.source_of(tensor)
        branch: Branch[Value] = self
        while name not in branch.values:
            assert branch.parent is not None, f"{name!r} is there, but nowhere"
            branch = branch.parent
        return branch.values[name]

    def began(self, step: int) -> None:
        """A step is under way."""
        self.running[step] = 0

    def opened(self, step: int) -> Branch[Value]:
        """The branch of the next answer of a step."""
        index = self.running[step]
        self.running[step] = index + 1
        if index not in self.branches:
            made = Branch(self._dag, self._wanted, self._scalar_of, self, index)
            self.branches[index] = self._uncollected[index] = made
        return self.branches[index]

    def ended(self, step: int) -> None:
        """A step has given its last answer."""
        del self.running[step]
        for branch in list(self.branches.values()):
            branch.prune()
        self.prune()

    def place(self) -> Place:
        """Where it is; the places after it and in it are greater."""
        return () if self.parent is None else (*self.parent.place(), self.index)

    def is_over(self) -> bool:
        """Whether no answer can come of it: it has its own, or what it is in has."""
        return self.answered or (self.parent is not None and self.parent.is_over())

    def answer(self, answer: object) -> None:
        """It has come to an answer or an error of the whole request, or (None) to nothing."""
        self.answered = True
        self._answers.append(answer)
        self.prune()

    def collect(self, *, everything: bool = False) -> list[object]:
        """The answers that may leave: each after those of all answers before the one it came from.

        `everything`: no more will come.
        """
        found, self._answers = self._answers, []
        while self._uncollected:
            branch = self._uncollected.get(self._next)
            if branch is not None:
                found += branch.collect(everything=everything)
                if not everything and not branch.answered and self._next in self.branches:
                    break
                del self._uncollected[self._next]
            self._next += 1
        return found

    def finished(self) -> list[Branch[Value]]:
        """This branch and those in it that have all outputs and are not answered yet."""
        if self.answered:
            return []
        if self.flow.done():
            return [self]
        return [found for branch in list(self.branches.values()) for found in branch.finished()]

    def prune(self) -> None:
        """Forget this branch, and those that it is in, once nothing can come of them any more."""
        branch: Branch[Value] = self
        while branch.parent is not None and branch.is_spent():
            branch.parent.branches.pop(branch.index, None)
            branch.flow.close()
            branch.values.clear()
            branch = branch.parent

    def close(self) -> None:
        """Let go of everything, so that nothing of it waits for a collector of garbage."""
        for branch in self.branches.values():
            branch.close()
        self.branches.clear()
        self._uncollected.clear()
        self.flow.close()
        self.values.clear()

    def is_spent(self) -> bool:
        """Whether nothing can come of it any more."""
        if self.running or self.branches:
            return False
        branch: Branch[Value] = self
        while not self.answered and branch.parent is not None:
            if any(answers <= branch.index for answers in branch.parent.running.values()):
                return False  # More may arrive where it was opened, or of its own number.
            branch = branch.parent
        return True

    def _scalar(self, tensor: str) -> Scalar:
        return self._scalar_of(tensor, self.value(tensor))

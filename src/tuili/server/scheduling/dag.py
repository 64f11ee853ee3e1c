"""Dag: the steps of an ensemble, checked when it is made, and the order in which one request runs.

A step needs tensors and makes tensors; it can start when all it needs is there. The plan is made
once per model; a `Flow` is one request on its way through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuili.errors import InvalidModel, nearest


@dataclass(frozen=True, slots=True)
class Step:
    """One model call: `needs` maps its inputs to tensors of the ensemble, `makes` its outputs."""

    model: str
    version: str
    needs: Mapping[str, str]
    makes: Mapping[str, str]


class Dag:
    """The steps of an ensemble between its inputs and its outputs."""

    def __init__(
        self, name: str, inputs: Iterable[str], outputs: Iterable[str], steps: Sequence[Step]
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.steps = tuple(steps)
        self.makers: dict[str, int] = {}
        self._check_makers()
        self._check_ends()
        self._check_cycles()
        self.users = {
            tensor: [at for at, step in enumerate(self.steps) if tensor in step.needs.values()]
            for tensor in (*self.inputs, *self.makers)
        }

    def needed_for(self, outputs: Iterable[str]) -> set[int]:
        """The steps that these outputs depend on."""
        found: set[int] = set()
        waiting = list(outputs)
        while waiting:
            at = self.makers.get(waiting.pop())
            if at is not None and at not in found:
                found.add(at)
                waiting.extend(self.steps[at].needs.values())
        return found

    def _check_makers(self) -> None:
        for at, step in enumerate(self.steps):
            if not step.needs or not step.makes:
                raise InvalidModel(
                    f"ensemble '{self.name}': {_label(at, step)} maps no input or output"
                )
            for tensor in step.makes.values():
                if tensor in self.makers or tensor in self.inputs:
                    raise InvalidModel(
                        f"ensemble '{self.name}': tensor '{tensor}' is made twice, the second time "
                        f"by {_label(at, step)}"
                    )
                self.makers[tensor] = at

    def _check_ends(self) -> None:
        known = (*self.inputs, *self.makers)
        used = {tensor for step in self.steps for tensor in step.needs.values()}
        for at, step in enumerate(self.steps):
            for tensor in step.needs.values():
                if tensor not in known:
                    raise InvalidModel(
                        f"ensemble '{self.name}': {_label(at, step)} needs tensor '{tensor}', "
                        f"which nothing makes.{nearest(tensor, known)}"
                    )
        for tensor in self.outputs:
            if tensor not in self.makers:
                raise InvalidModel(
                    f"ensemble '{self.name}': no step makes the output '{tensor}'."
                    + nearest(tensor, self.makers)
                )
        for tensor in self.inputs:
            if tensor not in used:
                raise InvalidModel(f"ensemble '{self.name}': no step uses the input '{tensor}'")

    def _check_cycles(self) -> None:
        there = set(self.inputs)
        left = list(enumerate(self.steps))
        while left:
            ready = [(at, step) for at, step in left if there.issuperset(step.needs.values())]
            if not ready:
                stuck = ", ".join(_label(at, step) for at, step in left)
                raise InvalidModel(
                    f"ensemble '{self.name}': these steps wait for each other: {stuck}"
                )
            for entry in ready:
                left.remove(entry)
                there.update(entry[1].makes.values())


class Flow:
    """One request in a DAG: which steps may start, and when the outputs are there."""

    def __init__(self, dag: Dag, outputs: Iterable[str]) -> None:
        self._dag = dag
        self._wanted = set(outputs)
        self._needed = dag.needed_for(self._wanted)
        self._there: set[str] = set()
        self._started: set[int] = set()

    def arrived(self, tensors: Iterable[str]) -> list[int]:
        """These tensors are there now; returns the steps that can start because of it."""
        fresh = list(tensors)
        self._there.update(fresh)
        found: list[int] = []
        for tensor in fresh:
            for at in self._dag.users.get(tensor, ()):
                ready = self._there.issuperset(self._dag.steps[at].needs.values())
                if ready and at in self._needed and at not in self._started:
                    self._started.add(at)
                    found.append(at)
        return found

    def done(self) -> bool:
        """Whether all wanted outputs are there."""
        return self._wanted <= self._there

    def free(self, at: int) -> list[str]:
        """The tensors that nobody needs after step `at` has started."""
        return [
            tensor
            for tensor in set(self._dag.steps[at].needs.values())
            if tensor not in self._wanted
            and self._started.issuperset(
                user for user in self._dag.users.get(tensor, ()) if user in self._needed
            )
        ]


def _label(at: int, step: Step) -> str:
    return f"step {at} ('{step.model}')"

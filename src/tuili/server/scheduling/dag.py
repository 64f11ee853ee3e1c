"""Dag: the steps of an ensemble or pipeline, checked when it is made.

A step needs tensors and makes tensors. It runs when all it needs is there and its conditions hold;
if one does not hold, or something it needs will never come, it is skipped and what it makes is
*absent*. A *merge* is a tensor that stands for the first present one of several: so branches join.
`Flow` (flow.py) is one request on its way through a Dag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuili.errors import InvalidModel, nearest
from tuili.server.scheduling.conditions import Condition


@dataclass(frozen=True, slots=True)
class Step:
    """One call: `needs` maps the model's inputs to tensors of the dag, `makes` its outputs."""

    model: str
    version: str
    needs: Mapping[str, str]
    makes: Mapping[str, str]
    when: tuple[Condition, ...] = ()
    name: str = ""

    def waits_for(self) -> list[str]:
        """The tensors that decide whether and when it runs."""
        return [*self.needs.values(), *(condition.tensor for condition in self.when)]


class Dag:
    """The steps between inputs and outputs; InvalidModel says what cannot work."""

    def __init__(
        self,
        name: str,
        inputs: Iterable[str],
        outputs: Iterable[str],
        steps: Sequence[Step],
        merges: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.steps = tuple(steps)
        self.merges = dict(merges or {})
        # By step, the tensors that its model can do without; who knows the models fills it.
        self.optional: dict[int, frozenset[str]] = {}
        self.makers: dict[str, int] = {}
        # Steps by number and merges by name, each after what it needs.
        self.order: list[int | str] = []
        self._check_makers()
        self._check_ends()
        self._check_cycles()
        tensors = (*self.inputs, *self.makers, *self.merges)
        self.users = {
            tensor: [at for at, step in enumerate(self.steps) if tensor in step.waits_for()]
            for tensor in tensors
        }
        self.merged_in = {
            tensor: [name for name, sources in self.merges.items() if tensor in sources]
            for tensor in tensors
        }

    def needed_for(self, outputs: Iterable[str]) -> set[int]:
        """The steps that these outputs depend on."""
        found: set[int] = set()
        waiting = list(outputs)
        seen: set[str] = set()
        while waiting:
            tensor = waiting.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            waiting.extend(self.merges.get(tensor, ()))
            at = self.makers.get(tensor)
            if at is not None and at not in found:
                found.add(at)
                waiting.extend(self.steps[at].waits_for())
        return found

    def _error(self, text: str) -> InvalidModel:
        return InvalidModel(f"ensemble '{self.name}': {text}")

    def _check_makers(self) -> None:
        for at, step in enumerate(self.steps):
            if not step.needs or not step.makes:
                raise self._error(f"{_label(at, step)} maps no input or output")
            for tensor in step.makes.values():
                if tensor in self.makers or tensor in self.inputs:
                    raise self._error(
                        f"tensor '{tensor}' is made twice, the second time by {_label(at, step)}"
                    )
                self.makers[tensor] = at
        for name in self.merges:
            if name in self.makers or name in self.inputs:
                raise self._error(f"output '{name}' has the name of another tensor")

    def _check_ends(self) -> None:
        known = (*self.inputs, *self.makers, *self.merges)
        used = {tensor for step in self.steps for tensor in step.waits_for()}
        used.update(source for sources in self.merges.values() for source in sources)
        for at, step in enumerate(self.steps):
            for tensor in step.waits_for():
                if tensor not in known:
                    raise self._error(
                        f"{_label(at, step)} needs tensor '{tensor}', which nothing makes."
                        + nearest(tensor, known)
                    )
        for name, sources in self.merges.items():
            for tensor in sources:
                if tensor not in known:
                    hint = nearest(tensor, known)
                    raise self._error(f"'{name}' is to be '{tensor}', which nothing makes.{hint}")
        for tensor in self.outputs:
            if tensor not in self.makers and tensor not in self.merges:
                hint = nearest(tensor, self.makers)
                raise self._error(f"no step makes the output '{tensor}'.{hint}")
        for tensor in self.inputs:
            if tensor not in used:
                raise self._error(f"no step uses the input '{tensor}'")

    def _check_cycles(self) -> None:
        there = set(self.inputs)
        steps = list(enumerate(self.steps))
        merges = dict(self.merges)
        while steps or merges:
            ready = [entry for entry in steps if there.issuperset(entry[1].waits_for())]
            joined = [name for name, sources in merges.items() if there.issuperset(sources)]
            if not ready and not joined:
                stuck = ", ".join(_label(at, step) for at, step in steps) or ", ".join(merges)
                raise self._error(f"these steps wait for each other: {stuck}")
            for entry in ready:
                steps.remove(entry)
                there.update(entry[1].makes.values())
            for name in joined:
                del merges[name]
                there.add(name)
            self.order += [*(at for at, _ in ready), *joined]


def _label(at: int, step: Step) -> str:
    return f"step '{step.name}'" if step.name else f"step {at} ('{step.model}')"

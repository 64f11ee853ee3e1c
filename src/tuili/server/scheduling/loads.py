"""Loads: which models are being loaded, and by which processes, so that a ring of them is found."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from tuili.server.scheduling.deadlock import AnyOf, LoadOver, Need


@dataclass(slots=True, eq=False)
class Load:
    """A load under way. It comes to its end when each of its `processes` goes on."""

    model: str
    processes: list[object] = field(default_factory=list[object])
    calls_others: ClassVar[bool] = True  # as a model that asks others, it may take for ever

    @property
    def name(self) -> str:
        """What it is called in a ring."""
        return f"load of '{self.model}'"

    def needs(self) -> list[Need]:
        """What must happen before it ends."""
        return [AnyOf((process,)) for process in list(self.processes)]


class Loads:
    """Those of a server; there is one at a time for each model."""

    def __init__(self) -> None:
        self._under_way: dict[str, Load] = {}

    def __iter__(self) -> Iterator[Load]:
        return iter(self._under_way.values())

    def of(self, model: str) -> Load | None:
        """The load of a model, if there is one now."""
        return self._under_way.get(model)

    @contextmanager
    def begun(self, model: str) -> Generator[Load]:
        """A model is being loaded, until this is left."""
        load = self._under_way[model] = Load(model)
        try:
            yield load
        finally:
            del self._under_way[model]


@dataclass(frozen=True, slots=True)
class LoadOf:
    """What waits until a model may be `done` something with: nothing else is loading it."""

    loads: Loads
    model: str
    done: str = "loaded"

    @property
    def told(self) -> str:
        """What does not happen if it would wait for ever."""
        return f"model '{self.model}' is not {self.done}"

    def needs(self) -> list[Need]:
        """What must happen before."""
        load = self.loads.of(self.model)
        return [] if load is None else [LoadOver((load,))]

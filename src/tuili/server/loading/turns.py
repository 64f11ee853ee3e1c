"""Turns: few models are loaded at a time, but one that hangs does not stop the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

_log: Final = logging.getLogger("tuili.server")


class Killable(Protocol):
    """A process that loads a model."""

    def kill(self) -> None: ...


@dataclass(slots=True, eq=False)
class Load:
    """A load under way; `processes` has those that have begun to load the model."""

    name: str
    processes: list[Killable] = field(default_factory=list[Killable])
    overdue: bool = False
    has_turn: bool = True


class Turns:
    """Compiling takes a core and much memory, so few models do it at once.

    A load that waits for its process for longer than `patience_s` has given its turn away: another
    one may begin. Such a load can be abandoned. So has one whose process waits for another load.
    """

    def __init__(self, count: int, patience_s: float = 30.0) -> None:
        self._free = asyncio.Semaphore(count)
        self._patience_s = patience_s
        self._loads: set[Load] = set()

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncGenerator[Load]:
        """Hold a turn, which the load of model `name` takes."""
        await self._free.acquire()
        load = Load(name)
        self._loads.add(load)
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch(load))
        try:
            yield load
        finally:
            watch.cancel()
            self._loads.discard(load)
            self._give_back(load)

    async def _watch(self, load: Load) -> None:
        waited: Sequence[Killable] = ()
        while not waited:
            # The compiler's time is not the model's: only one whose processes were there before.
            waited = list(load.processes)
            await asyncio.sleep(self._patience_s)
        load.overdue = True
        self._give_back(load)
        _log.warning(
            "model %s has been loading for more than %g s; others do not wait for it any more, and "
            "to unload it ends its load", load.name, self._patience_s,
        )  # fmt: skip

    def lend(self, process: Killable) -> None:
        """A process waits for another model's load: what it loads itself keeps no turn from it."""
        for load in self._loads:
            if process in load.processes:
                self._give_back(load)

    def _give_back(self, load: Load) -> None:
        if load.has_turn:
            load.has_turn = False
            self._free.release()

    def abandon(self, name: str) -> None:
        """Have the loads of a model fail that are overdue, or without a name all loads."""
        for load in self._loads:
            if not name or (load.name == name and load.overdue):
                for process in load.processes:
                    process.kill()

"""Departures: versions that get no more requests finish what they have, and are released."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Coroutine
from typing import Any, Generic, Protocol, TypeVar

from tuili.server.repository.homes import Home, Homes
from tuili.server.repository.states import State, VersionState

_log = logging.getLogger("tuili.server")


class Leaver(Home, Protocol):
    """What can leave."""

    async def drain(self, timeout_s: float | None = None) -> bool: ...
    async def close(self) -> None: ...


Leaving = TypeVar("Leaving", bound=Leaver)


class Departures(Generic[Leaving]):
    """Those of a repository that are under way."""

    def __init__(self, homes: Homes[Leaving]) -> None:
        self._homes = homes
        self._under_way: set[asyncio.Task[None]] = set()

    def under_way(self) -> list[asyncio.Task[None]]:
        """Their tasks; the end of the server waits for them."""
        return list(self._under_way)

    def begin(self, name: str, running: Leaving, entry: VersionState | None) -> asyncio.Task[None]:
        """Let a version go that another takes the place of, as soon as its sequences have ended.

        `entry` is the state to tell it in, if the version is not there anew.
        """

        async def go() -> None:
            if running.open_sequences():
                _log.info("model %s version %s goes on with its sequences", name, running.version)
                await self._homes.rest(name, running)
            await _release(running, entry)

        if entry is not None:
            entry.enter(State.UNLOADING)
        if not running.open_sequences():
            # Before the next request comes: the new version may have to know what this one ends.
            running.shut()
        return self._later(go())

    def begin_now(self, running: Leaving, entry: VersionState) -> asyncio.Task[None]:
        """Let a version go whose model is unloaded, and with it its sequences."""
        entry.enter(State.UNLOADING)
        running.shut()
        return self._later(_release(running, entry))

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


async def _release(running: Leaver, entry: VersionState | None) -> None:
    await running.drain()
    await running.close()
    await asyncio.to_thread(return_memory)
    if entry is not None:
        entry.enter(State.UNAVAILABLE, "unloaded")


def return_memory() -> None:
    """Give what the unloaded model held back to the system; glibc keeps it otherwise."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        # Another C library: it gives memory back in its own way.
        return

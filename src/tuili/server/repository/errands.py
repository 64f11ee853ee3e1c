"""Errands: work by name that goes on beside, one of a name at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_log = logging.getLogger("tuili.server")


class Errands:
    """What was begun and has not ended."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin some work, unless that of this name is under way."""
        if name in self._tasks:
            return
        task = self._tasks[name] = asyncio.ensure_future(work())
        task.add_done_callback(lambda done: self._ended(name, done))

    async def wait(self, timeout_s: float) -> None:
        """Wait for all of it, but no longer than this."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=timeout_s)

    async def cancel(self) -> None:
        """End all of it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, name: str, done: asyncio.Task[None]) -> None:
        del self._tasks[name]
        error = None if done.cancelled() else done.exception()
        if error is not None:
            _log.error("%s: %s", name, error, exc_info=error)

"""Slices: long work on the event loop, of which one slice is done in each of the loop's turns."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tuili.server.steps import Found, Steps, at_once


class Slices:
    """The long work of one front end, each piece of which goes on in its turn."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Steps[Any], asyncio.Future[Any]]] = deque()

    def run(self, work: Steps[Found], loop: asyncio.AbstractEventLoop) -> asyncio.Future[Found]:
        """A promise of what `work` returns; to cancel it gives the work up."""
        promise: asyncio.Future[Found] = loop.create_future()
        self._waiting.append((work, promise))
        if len(self._waiting) == 1:
            loop.call_soon(self._next, loop)
        return promise

    def begin(
        self, work: Steps[Found], loop: asyncio.AbstractEventLoop | None
    ) -> Found | asyncio.Future[Found]:
        """What `work` returns if that takes one step, else a promise; without a loop all of it."""
        if loop is None:
            return at_once(work)
        try:
            next(work)
        except StopIteration as end:
            return end.value
        return self.run(work, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        work, promise = self._waiting[0]
        try:
            if not promise.done():
                next(work)
            self._waiting.rotate(-1)
        except StopIteration as end:
            promise.set_result(end.value)
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            promise.set_exception(error)
        if promise.done():
            self._waiting.remove((work, promise))
        if self._waiting:
            loop.call_soon(self._next, loop)

"""Unpackers: large bodies are unpacked beside the event loop, so that nobody waits for them.

zlib works without the GIL. A body goes on by steps; between two of them the loop claims room for
what came of it. A body's first step goes before the next of those that have begun: one of a
megabyte does not wait for bombs. Of those one after the other comes to its end, since what is half
unpacked only takes room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tuili.errors import InternalError, TuiliError
from tuili.runtime.cpu import available_threads
from tuili.server.unpacking import PIECE, Unpacking

_ON_LOOP: Final = 256 << 10  # a quarter of a millisecond
_STEP: Final = 1 << 20
_LOG: Final = logging.getLogger("tuili.server")

Claim = Callable[[int], None]
Unpacked = bytes | memoryview


class _Body:
    """One body that is much; nobody waits for it once `waiting` is done."""

    __slots__ = ("claim", "unpacking", "waiting")

    def __init__(
        self, unpacking: Unpacking, claim: Claim, waiting: asyncio.Future[Unpacked]
    ) -> None:
        self.unpacking = unpacking
        self.claim = claim
        self.waiting = waiting


class Unpackers:
    """The threads of one front end; half as many as there are processors if nobody says."""

    def __init__(self, width: int = 0) -> None:
        self._width = width or max(available_threads() // 2, 1)
        self._threads: ThreadPoolExecutor | None = None
        self._running = 0
        self._new: deque[_Body] = deque()
        self._begun: deque[_Body] = deque()

    def unpack(
        self, unpacking: Unpacking, claim: Claim, loop: asyncio.AbstractEventLoop | None
    ) -> Unpacked | asyncio.Future[Unpacked]:
        """All of a body, or a promise of it where it is much; to cancel that gives it up.

        `claim` is told, on the loop, how much came that takes room, and may refuse it. Without a
        loop all is done at once.
        """
        while not unpacking.whole:
            if loop is not None and unpacking.size >= _ON_LOOP:
                waiting: asyncio.Future[Unpacked] = loop.create_future()
                self._new.append(_Body(unpacking, claim, waiting))
                self._go_on(loop)
                return waiting
            claim(unpacking.advance(PIECE))
        return unpacking.result

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the threads that rest something to do."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._width, "unpacking")
        while self._running < self._width and (self._new or self._begun):
            body = (self._new or self._begun).popleft()
            if not body.waiting.done():
                self._running += 1
                self._threads.submit(self._step, body, loop)

    def _step(self, body: _Body, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread: some more of a body."""
        found: int | TuiliError
        before = body.unpacking.size
        try:
            found = body.unpacking.advance(_STEP)
        except TuiliError as error:
            found = error
        except Exception:  # noqa: BLE001 - memory may be short
            _LOG.exception("a body could not be unpacked")
            found = InternalError("internal error; the server's log has the details")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._stepped, body, before <= _ON_LOOP, found, loop)

    def _stepped(
        self, body: _Body, first: bool, found: int | TuiliError, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._running -= 1
        if not body.waiting.done():
            self._take(body, first, found)
        self._go_on(loop)

    def _take(self, body: _Body, first: bool, found: int | TuiliError) -> None:
        """Claim what came, and tell who waits or let the body wait for its next step."""
        try:
            if isinstance(found, TuiliError):
                raise found
            body.claim(found)
        except TuiliError as error:
            body.waiting.set_exception(error)
            return
        if body.unpacking.whole:
            body.waiting.set_result(body.unpacking.result)
        elif first:
            self._begun.append(body)
        else:
            self._begun.appendleft(body)

"""Consumer: takes requests from a queue, has them answered, writes the answers back.

At least once: a request leaves the queue only together with its answer. What this process had in
hand when it died comes back to another consumer, and a repeat is known by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from tuili.errors import InternalError, TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.protocol.messages import InferResponse
from tuili.server.queues.messages import (
    Answer,
    Request,
    Source,
    answer_of,
    decode,
    decoder,
    error_of,
    verdict,
)

_log = logging.getLogger("tuili.server")

_FETCH_S: Final = 1.0
_CLOSE_S: Final = 2.0
_AGAIN_S: Final = 0.2  # until what was cancelled and goes on is cancelled again
# A queue that cannot be reached is asked again after these; the last one repeats.
_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)
_MOST_TRIES: Final = 5
_LATER_S: Final = 1.0
# So often in the time after which a request goes to another consumer.
_EXTENSIONS: Final = 3
_LEAST_S: Final = 0.01


class Consumer:
    """One queue's requests, at most `concurrency` of them at a time."""

    def __init__(self, dataplane: DataPlane, source: Source, concurrency: int = 64) -> None:
        self._dataplane = dataplane
        self._source = source
        self._free = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._decoder = decoder()
        self._tasks: dict[asyncio.Task[None], object] = {}  # with the handle of what it works on
        self._extending: asyncio.Task[None] | None = None
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take requests."""
        loop = asyncio.get_running_loop()
        self._loop = loop.create_task(self._run())
        self._extending = loop.create_task(self._extend())

    async def stop(self, timeout_s: float) -> None:
        """Take no more, answer what is in hand within the time; the rest goes to others."""
        self._stopping = True
        if self._loop is not None:
            # A fetch ends by itself; what waits for room, or for a lost queue, does not.
            await _ended({self._loop}, min(timeout_s, 2 * _FETCH_S))
        await _ended(set(self._tasks), timeout_s)
        if self._extending is not None:
            await _ended({self._extending}, 0.0)
        with contextlib.suppress(Exception):  # whatever a queue's client raises: it is over
            async with asyncio.timeout(_CLOSE_S):
                await self._source.close()

    async def _run(self) -> None:
        failures = 0
        opened = False
        while not self._stopping:
            try:
                if not opened:
                    await self._source.open()
                    opened = True
                    _log.info("taking requests from %s", self._source.name)
                await self._take()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever a queue's client raises
                # Its streams and groups may be gone, too, as after a restart without a disk.
                opened = False
                delay = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
                cause = str(error) or type(error).__name__
                _log.warning("%s: %s; trying again in %g s", self._source.name, cause, delay)
                await asyncio.sleep(delay)

    async def _extend(self) -> None:
        """Keep what is being worked on, however long that takes."""
        while True:
            await asyncio.sleep(max(self._source.claim_s / _EXTENSIONS, _LEAST_S))
            if self._tasks:
                try:
                    await self._source.extend(list(self._tasks.values()))
                except Exception as error:  # noqa: BLE001 - whatever a queue's client raises
                    # At worst it is handed out twice, and answered once.
                    _log.warning("%s: not extended: %s", self._source.name, error)

    async def _take(self) -> None:
        """Fetch as many as there is room for; each is worked on by a task of its own."""
        await self._free.acquire()
        room = 1
        while not self._free.locked() and room < self._concurrency:
            await self._free.acquire()
            room += 1
        try:
            found = await self._source.fetch(room, _FETCH_S)
        except BaseException:
            self._release(room)
            raise
        self._release(room - len(found))
        for handle, request in found:
            task = asyncio.get_running_loop().create_task(self._work(handle, request))
            self._tasks[task] = handle
            task.add_done_callback(self._done)

    async def _work(self, handle: object, request: Request) -> None:
        try:
            answer = await self._answer(request)
        except TuiliError as error:
            if verdict(error, request.tries, _MOST_TRIES) == "later":
                await self._source.later(handle, _LATER_S * request.tries)
                return
            answer = error_of(request.id, error)
        await self._source.answer(handle, answer)

    async def _answer(self, request: Request) -> Answer:
        try:
            asked, plan = decode(request, self._decoder)
        except TuiliError:
            raise
        except Exception as error:
            raise InternalError(f"the request cannot be read: {error!r}") from error
        waiting: asyncio.Future[InferResponse | TuiliError] = (
            asyncio.get_running_loop().create_future()
        )
        ticket = self._dataplane.submit(asked, lambda found: _settle(waiting, found))
        try:
            found = await waiting
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        if isinstance(found, TuiliError):
            raise found
        try:
            return answer_of(request.id, found, plan)
        except TuiliError:
            raise
        except Exception as error:
            raise InternalError(f"the answer cannot be written: {error!r}") from error

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._free.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Neither answered nor put back: the queue hands it out again after its time.
            _log.warning("%s: an answer could not be written: %s", self._source.name, error)

    def _release(self, count: int) -> None:
        for _ in range(count):
            self._free.release()


async def _ended(tasks: set[asyncio.Task[None]], timeout_s: float) -> None:
    """Let tasks end by themselves within the time, then end them.

    Time-outs inside a queue's client may swallow a cancellation that comes with them: asked again.
    """
    left = set(tasks)
    if left:
        _, left = await asyncio.wait(left, timeout=timeout_s)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


def _settle(
    waiting: asyncio.Future[InferResponse | TuiliError], found: InferResponse | TuiliError
) -> None:
    if not waiting.done():
        waiting.set_result(found)

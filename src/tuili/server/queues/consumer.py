"""Consumer: takes requests from a queue, has them answered, writes the answers back.

At least once: a request leaves the queue only together with its answer. What this process had in
hand when it died comes back to another consumer, and a repeat is known by its id.

One that comes back again and again may be what kills the servers. It is run alone, with nothing
else in hand, so that a death is nobody else's, and is given up when that has happened often enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Coroutine
from typing import Any, Final

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
from tuili.server.telemetry.queue_metrics import ANSWERED, BURIED, PUT_BACK, UNTOLD, QueueCounts

_log = logging.getLogger("tuili.server")

_FETCH_S: Final = 1.0
_CLOSE_S: Final = 2.0
_AGAIN_S: Final = 0.2  # until what was cancelled and goes on is cancelled again
# A queue that cannot be reached is asked again after these; the last one repeats.
_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)
# Longer in all than a model that is given up rests: others' crashes are no reason to give up.
LATER_S: Final = (1.0, 4.0, 15.0, 60.0)
_MOST_TRIES: Final = len(LATER_S) + 1
# So often in the time after which a request goes to another consumer.
_EXTENSIONS: Final = 3
_LEAST_S: Final = 0.01
_MOST_CAUSES: Final = 16
# Two deliveries that nobody ended may be a server that was stopped; the third is a suspect.
_SUSPECT: Final = 3
_MOST_ALONE: Final = 3
_MOST_PUT_BACK: Final = 10_000


class Consumer:
    """One queue's requests, at most `concurrency` of them at a time."""

    def __init__(self, dataplane: DataPlane, source: Source, concurrency: int = 64) -> None:
        self._dataplane = dataplane
        self._source = source
        self._free = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._decoder = decoder()
        self._tasks: dict[asyncio.Task[None], object] = {}  # with the handle of what it works on
        self._suspects: deque[tuple[object, Request]] = deque()
        # The tries, by id, of what went back to the queue from here in good order.
        self._put_back: OrderedDict[str, int] = OrderedDict()
        self.counts = QueueCounts(source.name)
        self._writes = True  # whether the last answer could be written
        self._causes: set[str] = set()  # what was told of the outage that there is
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
                    opened = self.counts.up = True
                    _log.info("taking requests from %s", self._source.name)
                await self._try_suspects()
                await self._take()
                failures = 0
                self._causes.clear()
            except Exception as error:  # noqa: BLE001 - whatever a queue's client raises
                # Its streams and groups may be gone, too, as after a restart without a disk.
                opened = self.counts.up = False
                self.counts.outages += 1
                delay = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
                self._outage(str(error) or type(error).__name__, delay)
                await asyncio.sleep(delay)

    def _outage(self, cause: str, delay: float) -> None:
        """The queue cannot be had: told once for each cause, however long it takes."""
        level = logging.DEBUG if cause in self._causes else logging.WARNING
        if len(self._causes) < _MOST_CAUSES:
            self._causes.add(cause)
        text = "%s: %s; trying again in %g s, and then until it is back"
        _log.log(level, text, self._source.name, cause, delay)

    async def _extend(self) -> None:
        """Keep what is being worked on, however long that takes."""
        told = False
        while True:
            await asyncio.sleep(max(self._source.claim_s / _EXTENSIONS, _LEAST_S))
            held = [*self._tasks.values(), *(handle for handle, _ in self._suspects)]
            if held:
                try:
                    await self._source.extend(held)
                    told = False
                except Exception as error:  # noqa: BLE001 - whatever a queue's client raises
                    # At worst it is handed out twice, and answered once.
                    level = logging.DEBUG if told else logging.WARNING
                    told = True
                    _log.log(level, "%s: not extended: %s", self._source.name, error)

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
        self.counts.in_hand += len(found)
        for handle, request in found:
            if self._is_suspect(request):
                self._suspects.append((handle, request))
            else:
                self._begin(handle, self._work(handle, request))

    def _begin(self, handle: object, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = handle
        task.add_done_callback(self._done)
        return task

    def _is_suspect(self, request: Request) -> bool:
        ended = self._put_back.pop(request.id, 0)
        return request.tries >= _SUSPECT and ended != request.tries - 1

    async def _try_suspects(self) -> None:
        """Run each suspect with nothing else in hand; what was often enough alone is given up."""
        if self._suspects and self._tasks:
            await asyncio.wait(self._tasks)
        while self._suspects:
            handle, request = self._suspects[0]
            before = await self._source.begun(handle)
            self._suspects.popleft()
            work = self._work if before < _MOST_ALONE else self._give_up
            await asyncio.wait({self._begin(handle, work(handle, request))})

    async def _give_up(self, handle: object, request: Request) -> None:
        told = (
            f"the request is given up: no server survived it, alone {_MOST_ALONE} times; "
            f"it was delivered {request.tries} times"
        )
        await self._bury(handle, request, InternalError(told))

    async def _bury(self, handle: object, request: Request, error: TuiliError) -> None:
        await self._source.bury(handle, request, error_of(request.id, error))
        self.counts.outcomes[BURIED] += 1
        _log.warning("%s: request %r is given up: %s", self._source.name, request.id, error)

    async def _work(self, handle: object, request: Request) -> None:
        try:
            answer = await self._answer(request)
        except TuiliError as error:
            found = verdict(error, request.tries, _MOST_TRIES)
            if found == "later":
                await self._later(handle, request)
                return
            if found == "bury":
                await self._bury(handle, request, error)
                return
            answer = error_of(request.id, error)
        await self._source.answer(handle, answer)
        self._writes = True
        self.counts.outcomes[ANSWERED] += 1

    async def _later(self, handle: object, request: Request) -> None:
        await self._source.later(handle, LATER_S[request.tries - 1])
        self.counts.outcomes[PUT_BACK] += 1
        self._put_back[request.id] = request.tries
        if len(self._put_back) > _MOST_PUT_BACK:
            self._put_back.popitem(last=False)

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
        self.counts.in_hand -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            # Neither answered nor put back: the queue hands it out again after its time.
            self.counts.outcomes[UNTOLD] += 1
            # One line for all that an outage costs; the metrics have their number.
            level = logging.WARNING if self._writes else logging.DEBUG
            self._writes = False
            _log.log(level, "%s: answers cannot be written: %s", self._source.name, error)

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

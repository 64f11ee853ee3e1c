"""Running batches: join the requests' arrays and run the model, on the loop or on a thread."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

import msgspec
import numpy as np

from tuili.backends import Executable, stream
from tuili.backends.requests import Answered, by_request
from tuili.errors import Cancelled, InternalError, TuiliError, Unavailable
from tuili.server.execution.express import join_raw
from tuili.server.execution.pending import Pending
from tuili.server.execution.telling import told_of
from tuili.server.protocol.messages import Array


class InstanceDied(Unavailable):
    """The instance that had a request is gone; the request itself may be fine.

    `started` is false for a request that waited behind the one that was being run: it is neither
    the cause nor half done.
    """

    def __init__(self, text: str, *, started: bool = True) -> None:
        super().__init__(text)
        self.started = started


class Outcome(msgspec.Struct, gc=False):
    """What came of a batch: outputs or an error, and the moments between its steps."""

    started_ns: int
    joined_ns: int
    done_ns: int
    outputs: Mapping[str, Array] | None = None
    answers: Sequence[Answered] | None = None  # of a model that answers each request by itself
    error: TuiliError | None = None


def execute(model: Executable, batch: Sequence[Pending]) -> Outcome:
    """Run one batch; whatever goes wrong becomes an error of the tree."""
    started = joined = time.monotonic_ns()
    try:
        arrays = join(batch)
        joined = time.monotonic_ns()
        requests = by_request(model)
        if requests is not None:
            told = [told_of(item) for item in batch]
            answers = requests.run_requests(arrays, told, lambda at: batch[at].reply is None)
            return Outcome(started, joined, time.monotonic_ns(), {}, answers)
        outputs = model.run(arrays)
    except TuiliError as error:
        return Outcome(started, joined, time.monotonic_ns(), error=error)
    except Exception as error:  # noqa: BLE001 - see below
        # A back end's own exception must cost these requests, never the server.
        wrapped = InternalError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return Outcome(started, joined, time.monotonic_ns(), error=wrapped)
    return Outcome(started, joined, time.monotonic_ns(), outputs)


def execute_parts(model: Executable, item: Pending, loop: asyncio.AbstractEventLoop) -> Outcome:
    """Run one request whose answers go to `item.part` on the loop, until it is cancelled."""
    started = time.monotonic_ns()
    try:
        for answer in _parts(model, item):
            if item.part is None or item.reply is None or loop.is_closed():
                break
            loop.call_soon_threadsafe(item.part, answer)
    except TuiliError as error:
        return Outcome(started, started, time.monotonic_ns(), error=error)
    except Exception as error:  # noqa: BLE001 - as in `execute`
        wrapped = InternalError(f"{type(error).__name__}: {error}")
        return Outcome(started, started, time.monotonic_ns(), error=wrapped)
    return Outcome(started, started, time.monotonic_ns(), {})


def _parts(model: Executable, item: Pending) -> Iterator[Answered]:
    requests = by_request(model)
    if requests is None:
        return (Answered(outputs) for outputs in stream(model, item.arrays))
    return requests.stream_request(item.arrays, told_of(item), lambda _: item.reply is None)


def join(batch: Sequence[Pending]) -> dict[str, Array]:
    """One array per input, the requests' rows one after the other."""
    if len(batch) == 1:
        return batch[0].materialized()
    joined = join_raw(batch)
    if joined is not None:
        return joined
    arrays = [item.materialized() for item in batch]
    return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}


class Runner(Protocol):
    """What runs batches, one at a time: an instance in this process, or a slot of a model host.

    `model` is None when nothing can run on the loop itself.
    """

    available: bool

    @property
    def model(self) -> Executable | None: ...
    def run_beside(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Pending],
        done: Callable[[Outcome], None],
    ) -> None: ...
    def cancelled(self, item: Pending) -> None: ...
    def close(self) -> None: ...


class Instance:
    """One loaded copy of a model, and the thread that runs it when it is not quick."""

    def __init__(self, model: Executable, name: str, cores: frozenset[int] = frozenset()) -> None:
        self.model = model
        self.available = True
        self.name = name
        self._cores = cores
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def run_beside(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Pending],
        done: Callable[[Outcome], None],
    ) -> None:
        """Run a batch on this instance's thread; `done` is called on the loop."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()

        def job() -> None:
            if all(item.reply is None for item in batch):
                # Nobody waits for it any more.
                now_ns = time.monotonic_ns()
                error = Cancelled("all of its requests were cancelled")
                outcome = Outcome(now_ns, now_ns, now_ns, error=error)
            elif batch[0].part is None:
                outcome = execute(self.model, batch)
            else:
                outcome = execute_parts(self.model, batch[0], loop)
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, outcome)

        self._jobs.put(job)

    def cancelled(self, item: Pending) -> None:
        """The model sees by itself that nobody waits."""

    def close(self) -> None:
        """End the thread and release the model; no batch may be running."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        close = getattr(self.model, "close", None)
        if close is not None:
            close()

    def _work(self) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)
        while (job := self._jobs.get()) is not None:
            job()

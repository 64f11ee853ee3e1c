"""Instance: one loaded copy of a model in this process, and the thread that runs it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread

from tuili.backends import Executable
from tuili.backends.requests import Answered
from tuili.errors import Cancelled, InternalError, TuiliError
from tuili.server.execution.pending import Pending
from tuili.server.execution.running import Outcome, begin_streams, execute
from tuili.server.execution.streams import OpenBatch


class Instance:
    """One loaded copy of a model, and the thread that runs it when it is not quick."""

    behind = False  # its thread runs nothing else
    behind_caller = False
    process = None

    def __init__(self, model: Executable, name: str, cores: frozenset[int] = frozenset()) -> None:
        self.model = model
        self.available = True
        self.name = name
        self.threads = 0
        self._cores = cores
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._open: set[OpenBatch] = set()

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
        if batch[0].part is not None:
            self._stream(loop, batch, done)
            return
        threads = self.threads

        def job() -> None:
            if all(item.reply is None for item in batch):
                # Nobody waits for it any more.
                now_ns = time.monotonic_ns()
                error = Cancelled("all of its requests were cancelled")
                outcome = Outcome(now_ns, now_ns, now_ns, error=error)
            else:
                outcome = execute(self.model, batch, threads)
            if not loop.is_closed():
                loop.call_soon_threadsafe(done, outcome)

        self._jobs.put(job)

    def cancelled(self, item: Pending) -> None:
        """The model sees by itself that nobody waits."""
        for opened in self._open:
            at = opened.find(item)
            if at is not None:
                opened.forget(at)

    def _stream(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[Pending],
        done: Callable[[Outcome], None],
    ) -> None:
        """Run requests whose answers come by themselves."""
        opened = OpenBatch(batch, done)
        self._open = {each for each in self._open if not each.over} | {opened}
        last = Event()

        def on_loop(call: Callable[[], object]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(call)

        def send(at: int, answer: Answered | None, final: bool) -> None:
            on_loop(partial(opened.take, at, answer, final))
            if final:
                last.set()

        def job() -> None:
            failed: TuiliError | None = None
            try:
                if any(item.reply is not None for item in batch):
                    begin_streams(self.model, batch, send)
            except TuiliError as error:
                failed = error
            except Exception as error:  # noqa: BLE001 - it must cost this batch only
                failed = InternalError(f"{type(error).__name__}: {error}")
            else:
                if batch[0].sequence and batch[0].reply is not None:
                    last.wait()  # The sequence goes on when all is known of this request.
            on_loop(partial(opened.release, failed))

        self._jobs.put(job)

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

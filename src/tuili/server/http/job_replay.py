"""What an earlier server left of its jobs: answers are there again, requests run again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final

from tuili.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    NotFound,
    TuiliError,
    Unavailable,
)
from tuili.server.dataplane import DataPlane
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import ALL_BINARY
from tuili.server.http.inference import Inference
from tuili.server.http.job_runs import JobRuns, Run, reply_of
from tuili.server.http.routes import Match
from tuili.server.jobs.changes import Begun, Left
from tuili.server.jobs.journal import Journal
from tuili.server.scheduling.jobs import Job, JobStore
from tuili.server.scheduling.replay import Replay

_log = logging.getLogger("tuili.server")
_LENGTH: Final = b"inference-header-content-length"


class JobReplay:
    """Gives a store what was left, and has what is unfinished run."""

    def __init__(
        self,
        dataplane: DataPlane,
        inference: Inference,
        runs: JobRuns,
        store: JobStore,
        journal: Journal,
    ) -> None:
        self._dataplane = dataplane
        self._inference = inference
        self._runs = runs
        self._store = store
        self._journal = journal
        self._left: dict[str, tuple[Left, Job]] = {}
        self._owed: list[Left] = []
        self._replay = Replay([], 0.0)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def restore(self, lefts: Sequence[Left]) -> None:
        """Know the jobs; those without an answer run after `resume`."""
        now, wall = time.monotonic(), time.time()
        for left in lefts:
            if left.owed:
                self._owed.append(left)
            if left.gone:
                continue
            job = _job(left, now, wall)
            self._store.restore(job)
            if left.state == "queued":
                self._left[left.id] = left, job

    def resume(self) -> None:
        """Run and post: the models are loaded."""
        for left in self._owed:
            try:
                self._runs.post_left(left)
            except TuiliError as error:
                _log.error("the answer of job %s is not posted: %s", left.id, error)
        self._owed.clear()
        rows = [(id_, left.starts) for id_, (left, _) in self._left.items()]
        self._replay = Replay(rows, time.monotonic())
        if rows:
            _log.info("%d jobs that an earlier server left are run again", len(rows))
        for id_ in self._replay.hopeless:
            left, job = self._left[id_]
            self._runs.refuse(self._run(left, job), InternalError(
                f"the server ended {left.starts} times while this job was under way, and does not "
                "try again"
            ))  # fmt: skip
        self._go_on()

    def stop(self) -> None:
        """Begin no more of them."""
        self._left.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self) -> None:
        now = time.monotonic()
        while due := self._replay.due(now):
            for id_ in due:
                self._begin(id_)
        if self._timer is not None:
            self._timer.cancel()
        at = self._replay.next_at(now)
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(at - now, self._go_on)

    def _begin(self, id_: str) -> None:
        found = self._left.get(id_)
        if found is None or found[1].state != "queued":
            self._replay.ended(id_)  # cancelled, or the server stops
            return
        # That it began is on the disk before it may end the server.
        self._journal.note(Begun(id_))
        self._journal.request(id_, partial(self._read, *found))

    def _read(self, left: Left, job: Job, body: bytes) -> None:
        if len(body) != left.request_bytes:
            lost = f"its request is damaged: {len(body)} of {left.request_bytes} bytes can be read"
            self._runs.refuse(self._run(left, job), InternalError(lost))
            return
        task = asyncio.get_running_loop().create_task(self._start(left, job, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, left: Left, job: Job, body: bytes) -> None:
        run = self._run(left, job)
        asked = left.asked
        head, match = _head(left, len(body)), Match("job_submit", asked.model, asked.version)
        loop = asyncio.get_running_loop()
        try:
            found = self._dataplane.when_live(
                asked.model, lambda: self._inference.read_long(head, match, body)
            )
            steps = await found if isinstance(found, Awaitable) else found
            request, plan = await self._inference.slices.run(steps, loop)
        except TuiliError as error:
            self._runs.refuse(run, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the job waiting
            _log.exception("the request of job %s cannot be read", left.id)
            self._runs.refuse(run, InternalError(f"its request cannot be read: {error}"))
        else:
            run.form = plan.form
            self._runs.start(run, request)
            if job.state != "queued":
                run.over()

    def _run(self, left: Left, job: Job) -> Run:
        loop = asyncio.get_running_loop()
        return Run(
            job, ALL_BINARY, left.asked.url, loop,
            is_final=partial(self._is_final, left.id),
            over=partial(self._ended, left.id),
        )  # fmt: skip

    def _is_final(self, id_: str, error: TuiliError) -> bool:
        """Whether an error is the answer, and not that there is no room or no model yet."""
        passing = isinstance(error, Unavailable | NotFound) and not isinstance(
            error, DeadlineExceeded | Cancelled
        )
        if passing and self._replay.refused(id_, time.monotonic()):
            self._go_on()
            return False
        return True

    def _ended(self, id_: str) -> None:
        self._left.pop(id_, None)
        self._replay.ended(id_)
        self._go_on()


def _job(left: Left, now: float, wall: float) -> Job:
    job = Job(left.id, left.asked.model, left.key, left.request_bytes, left.state)
    if left.state != "queued":
        job.finished = now - max(wall - left.finished, 0.0)
        job.error = left.error
    if left.answer is not None:
        job.result = reply_of(left.answer)
        if left.state == "done":
            job.size = sum(map(len, left.answer.parts))
    return job


def _head(left: Left, length: int) -> Head:
    headers: dict[bytes, bytes] = {}
    if left.asked.json_length is not None:
        headers[_LENGTH] = b"%d" % left.asked.json_length
    found: Any = left.asked.json_length
    return Head("POST", b"", (), b"", headers, length, keep_alive=False, json_length=found)

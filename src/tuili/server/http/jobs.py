"""Asynchronous inference: submit a request, fetch its answer later or have it posted."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from tuili.errors import NotFound, Unavailable
from tuili.server.dataplane import DataPlane
from tuili.server.http.codec import Plan
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.inference import Begin, Inference
from tuili.server.http.job_replay import JobReplay
from tuili.server.http.job_runs import JobRuns, Run
from tuili.server.http.reply import Buffer, Reply, json_reply
from tuili.server.http.responder import Responder
from tuili.server.http.routes import Match
from tuili.server.jobs.changes import Accepted, Asked, Cancelled, Forgotten, Left
from tuili.server.jobs.journal import Journal, Memory
from tuili.server.protocol.messages import InferRequest
from tuili.server.scheduling.jobs import Job, JobLimits, JobStore
from tuili.server.steps import Steps
from tuili.server.webhooks import Webhooks

ACCEPTED: Final = 202
_Read = tuple[InferRequest, Plan]


class Jobs:
    """The job routes of a server, and all its jobs."""

    def __init__(
        self,
        dataplane: DataPlane,
        inference: Inference,
        responder: Responder,
        webhooks: Webhooks,
        journal: Journal | None = None,
        limits: JobLimits | None = None,
    ) -> None:
        self._inference = inference
        self._responder = responder
        self._webhooks = webhooks
        self._journal: Journal = journal or Memory()
        self._store = store = JobStore(limits, self._forgotten)
        self._runs = JobRuns(dataplane, responder, webhooks, store, self._journal)
        self._replay = JobReplay(dataplane, inference, self._runs, store, self._journal)
        # Who waits for a job to be written down, by its id.
        self._unwritten: dict[str, list[Callable[[str], None]]] = {}

    # ---- life
    def restore(self, lefts: Sequence[Left]) -> None:
        """Know what an earlier server left; `resume` runs what is unfinished."""
        self._replay.restore(lefts)

    def resume(self) -> None:
        """Run what was left, once there are models."""
        self._replay.resume()

    def stop(self) -> None:
        """The server ends: what it cannot answer is left to the next one."""
        self._runs.stopping = True
        self._replay.stop()

    async def close(self) -> None:
        """Return once all is written down."""
        await self._journal.close()

    # ---- routes
    def handles(self, operation: str) -> bool:
        """Whether the operation is one of these."""
        return operation in ("job_submit", "job_status", "job_result", "job_cancel")

    def answer(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        """Answer one request about jobs; TuiliError where it is refused."""
        if match.operation == "job_submit":
            self._submit(connection, head, match, body)
        elif match.operation == "job_cancel":
            self._cancel(connection, match)
        elif match.operation == "job_result":
            connection.reply(self._result(match))
        else:
            connection.reply(json_reply(_described(self._job(match))))

    def begin(self, head: Head, match: Match, body: Buffer) -> Steps[Begin]:
        """As `answer`, of a request whose JSON is long: what is to be done once it is read."""
        whole = bytes(body)
        read = yield from self._inference.read_long(head, match, whole)
        return lambda connection: self._submit(connection, head, match, whole, read)

    def _submit(
        self,
        connection: HttpConnection,
        head: Head,
        match: Match,
        body: Buffer,
        read: _Read | None = None,
    ) -> None:
        key, url = _header(head, b"idempotency-key"), _header(head, b"tuili-webhook")
        if url:
            self._webhooks.check(url)
        job = self._store.known(key, match.model, time.monotonic())
        if job is None:
            # A copy: the connection reuses its buffer for the next request.
            whole = bytes(body)
            request, plan = read or self._inference.read(head, match, whole)
            now = time.monotonic()
            job = self._store.add(uuid.uuid4().hex, match.model, now, key, len(whole))
            run = Run(job, plan.form, url, connection.loop)
            asked = Asked(match.model, match.version or match.label, head.json_length, url)
            change = Accepted(job.id, key, time.time(), asked, whole)
            self._unwritten[job.id] = []
            self._journal.write(change, partial(self._written, run, request))
        waiting = self._unwritten.get(job.id)
        if waiting is None:
            connection.reply(_accepted(job))
        else:
            waiting.append(partial(self._answer_submit, connection, job))

    def _written(self, run: Run, request: InferRequest, trouble: str) -> None:
        """The job is on the disk, or cannot be taken."""
        waiting = self._unwritten.pop(run.job.id)
        if trouble:
            self._store.withdraw(run.job)
        else:
            self._runs.start(run, request)
        for tell in waiting:
            tell(trouble)

    def _answer_submit(self, connection: HttpConnection, job: Job, trouble: str) -> None:
        if trouble:
            text = f"the job is not taken, as it cannot be written down: {trouble}"
            self._refuse(connection, text)
        else:
            connection.reply(_accepted(job))

    def _refuse(self, connection: HttpConnection, text: str) -> None:
        connection.reply(self._responder.refusals.reply(Unavailable(text)))

    def _result(self, match: Match) -> Reply:
        job = self._job(match)
        if job.state == "queued":
            return json_reply(_described(job), ACCEPTED, ((b"Retry-After", b"1"),))
        if job.state == "cancelled" or job.result is None:
            raise NotFound(f"job {job.id!r} has no answer: {job.error or 'it was cancelled'}")
        return job.result

    def _cancel(self, connection: HttpConnection, match: Match) -> None:
        job = self._job(match)
        queued = job.state == "queued"
        change = Cancelled(job.id, time.time()) if queued else Forgotten(job.id)
        self._journal.write(change, partial(self._cancelled, connection, job))

    def _cancelled(self, connection: HttpConnection, job: Job, trouble: str) -> None:
        """That it is taken back is on the disk, lest it run again after a crash."""
        if trouble:
            text = f"the job is not taken back, as that cannot be written down: {trouble}"
            self._refuse(connection, text)
            return
        if job in self._store:
            self._store.cancel(job, time.monotonic())
        connection.reply(json_reply(_described(job)))

    def _job(self, match: Match) -> Job:
        return self._store.get(match.job, time.monotonic())

    def _forgotten(self, job: Job) -> None:
        self._journal.note(Forgotten(job.id))


def _accepted(job: Job) -> Reply:
    return json_reply(_described(job), ACCEPTED, ((b"Location", f"/v2/jobs/{job.id}".encode()),))


def _described(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {"id": job.id, "model_name": job.model, "state": job.state}
    if job.state == "done":
        found["result"] = f"/v2/jobs/{job.id}/result"
    if job.error:
        found["error"] = job.error
    return found


def _header(head: Head, name: bytes) -> str:
    return head.headers.get(name, b"").decode("latin-1")

"""Asynchronous inference: submit a request, fetch its answer later or have it posted."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tuili.errors import NotFound, TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.http.codec import Plan
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import Form, write_body
from tuili.server.http.inference import Begin, Inference
from tuili.server.http.pieces import size_of
from tuili.server.http.reply import OCTETS, Buffer, Reply, json_reply
from tuili.server.http.responder import Responder
from tuili.server.http.routes import Match
from tuili.server.protocol.messages import InferRequest, InferResponse
from tuili.server.scheduling.jobs import Job, JobStore
from tuili.server.steps import Steps
from tuili.server.webhooks import Webhooks

ACCEPTED: Final = 202
_UNWRITTEN: Final = "it cannot be written"


class Jobs:
    """The job routes of one front end."""

    def __init__(
        self,
        dataplane: DataPlane,
        inference: Inference,
        responder: Responder,
        webhooks: Webhooks,
        store: JobStore | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._inference = inference
        self._responder = responder
        self._webhooks = webhooks
        self._store = store or JobStore()
        self._routes: dict[str, Callable[[Match], Reply]] = {
            "job_status": self._status,
            "job_result": self._result,
            "job_cancel": self._cancel,
        }

    def handles(self, operation: str) -> bool:
        """Whether the operation is one of these."""
        return operation == "job_submit" or operation in self._routes

    def answer(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        """Answer one request about jobs; TuiliError where it is refused."""
        if match.operation == "job_submit":
            connection.reply(self._submit(connection, head, match, body))
        else:
            connection.reply(self._routes[match.operation](match))

    def begin(self, head: Head, match: Match, body: Buffer) -> Steps[Begin]:
        """As `answer`, of a request whose JSON is long: what is to be done once it is read."""
        asked = yield from self._inference.read_long(head, match, bytes(body))
        return lambda connection: connection.reply(
            self._submit(connection, head, match, body, asked)
        )

    def _submit(
        self,
        connection: HttpConnection,
        head: Head,
        match: Match,
        body: Buffer,
        asked: tuple[InferRequest, Plan] | None = None,
    ) -> Reply:
        now = time.monotonic()
        key = _header(head, b"idempotency-key")
        url = _header(head, b"tuili-webhook")
        if url:
            self._webhooks.check(url)
        job = self._store.known(key, match.model, now)
        if job is None:
            # A copy: the connection reuses its buffer for the next request.
            request, plan = asked or self._inference.read(head, match, bytes(body))
            job = self._store.add(uuid.uuid4().hex, match.model, now, key)

            # The connection may be gone when the answer comes, its loop is not.
            answered = partial(self._answered, job, plan.form, url, connection.loop)
            ticket = self._dataplane.submit(request, answered)
            if job.state == "queued" and job.cancel is None:
                job.cancel = ticket.cancel
        location = f"/v2/jobs/{job.id}".encode()
        return json_reply(_described(job), ACCEPTED, ((b"Location", location),))

    def _status(self, match: Match) -> Reply:
        return json_reply(_described(self._store.get(match.job, time.monotonic())))

    def _result(self, match: Match) -> Reply:
        job = self._store.get(match.job, time.monotonic())
        if job.state == "queued":
            return json_reply(_described(job), ACCEPTED, ((b"Retry-After", b"1"),))
        if job.state == "cancelled" or job.result is None:
            raise NotFound(f"job {job.id!r} has no answer: {job.error or 'it was cancelled'}")
        return job.result

    def _cancel(self, match: Match) -> Reply:
        job = self._store.get(match.job, time.monotonic())
        self._store.cancel(job, time.monotonic())
        return json_reply(_described(job))

    def _answered(
        self,
        job: Job,
        form: Form,
        url: str,
        loop: asyncio.AbstractEventLoop | None,
        answer: InferResponse | TuiliError,
    ) -> None:
        """Called by the data plane, once for a job."""
        if job.state != "queued":
            return
        if isinstance(answer, TuiliError):
            self._finish(job, url, self._responder.refusals.reply(answer), str(answer))
            return
        try:
            written = self._responder.slices.begin(_write(answer, form), loop)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the job waiting
            self._finish(job, url, self._responder.instead(error), _UNWRITTEN)
            return
        if isinstance(written, asyncio.Future):
            job.cancel = partial(_give_up, written)
            written.add_done_callback(partial(self._written, job, url))
        else:
            self._finish(job, url, written, "")

    def _written(self, job: Job, url: str, written: asyncio.Future[Reply]) -> None:
        """An answer that takes long to write is written."""
        if written.cancelled() or job.state != "queued":
            return
        error = written.exception()
        if error is None:
            self._finish(job, url, written.result(), "")
        else:
            self._finish(job, url, self._responder.instead(error), _UNWRITTEN)

    def _finish(self, job: Job, url: str, reply: Reply, cause: str) -> None:
        now = time.monotonic()
        if reply.status == 200:
            self._store.finish(job, now, reply, sum(map(len, reply.parts)))
        else:
            self._store.fail(job, now, cause, reply)
        if url:
            self._post(url, job, reply)

    def _post(self, url: str, job: Job, reply: Reply) -> None:
        """The answer as it is, also where it is too large to be kept for fetching."""
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        headers |= {
            "Content-Type": reply.content_type.decode(),
            "Tuili-Job": job.id,
            "Tuili-Job-State": "done" if reply.status == 200 else "failed",
            "Idempotency-Key": job.id,
        }
        self._webhooks.post(url, b"".join(reply.parts), headers)


def _write(answer: InferResponse, form: Form) -> Steps[Reply]:
    text, blobs = yield from write_body(answer, form)
    if not blobs:
        return Reply(200, text)
    headers = ((b"Inference-Header-Content-Length", b"%d" % size_of(text)),)
    # Copies: outputs may be rows of a batch that others share.
    return Reply(200, [*text, *(bytes(blob) for blob in blobs)], OCTETS, headers)


def _give_up(written: asyncio.Future[Reply]) -> None:
    written.cancel()


def _described(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {"id": job.id, "model_name": job.model, "state": job.state}
    if job.state == "done":
        found["result"] = f"/v2/jobs/{job.id}/result"
    if job.error:
        found["error"] = job.error
    return found


def _header(head: Head, name: bytes) -> str:
    return head.headers.get(name, b"").decode("latin-1")

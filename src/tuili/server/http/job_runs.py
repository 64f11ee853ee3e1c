"""The run of a job: from its request to its answer, which is written down and posted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tuili.errors import TuiliError, UserError
from tuili.server.dataplane import DataPlane
from tuili.server.http.infer_reply import Form, write_body
from tuili.server.http.pieces import size_of
from tuili.server.http.reply import OCTETS, Reply
from tuili.server.http.responder import Responder
from tuili.server.jobs.changes import Answer, Finished, Left, Told
from tuili.server.jobs.journal import Journal
from tuili.server.protocol.messages import InferRequest, InferResponse
from tuili.server.scheduling.jobs import Job, JobStore
from tuili.server.steps import Steps
from tuili.server.webhooks import Webhooks

_UNWRITTEN: Final = "it cannot be written"


def _is_final(error: TuiliError) -> bool:
    """Any error ends a job."""
    return True


def _nothing() -> None:
    """Nobody waits for its end."""


@dataclass(slots=True, eq=False)
class Run:
    """A job under way; `form` is how its answer is written, `is_final` whether an error ends it."""

    job: Job
    form: Form
    url: str
    loop: asyncio.AbstractEventLoop | None
    is_final: Callable[[TuiliError], bool] = _is_final
    over: Callable[[], None] = _nothing  # told once it ended, perhaps more than once
    answered: bool = False

    def cancel_by(self, cancel: Callable[[], object]) -> None:
        """How to take it back from now on."""

        def both() -> None:
            cancel()
            self.over()

        self.job.cancel = both


class JobRuns:
    """Runs jobs, and keeps and posts their answers."""

    def __init__(
        self,
        dataplane: DataPlane,
        responder: Responder,
        webhooks: Webhooks,
        store: JobStore,
        journal: Journal,
    ) -> None:
        self._dataplane = dataplane
        self._responder = responder
        self._webhooks = webhooks
        self._store = store
        self._journal = journal
        # From then on whom the server's end hits is not answered: the next server will.
        self.stopping = False

    def start(self, run: Run, request: InferRequest) -> None:
        """Run the model, unless the job was cancelled."""
        job = run.job
        if job.state != "queued":
            return
        # The connection may be gone when the answer comes, its loop is not.
        ticket = self._dataplane.submit(request, partial(self._answered, run))
        if not run.answered:
            run.cancel_by(ticket.cancel)

    def refuse(self, run: Run, error: TuiliError) -> None:
        """Its request cannot be run."""
        self._answered(run, error)

    def _answered(self, run: Run, answer: InferResponse | TuiliError) -> None:
        """Called by the data plane, once for a job."""
        job = run.job
        if job.state != "queued":
            return
        run.answered, job.cancel = True, None
        if isinstance(answer, TuiliError):
            if self._journal.lasts and self.stopping and not isinstance(answer, UserError):
                return
            if run.is_final(answer):
                self._finish(run, self._responder.refusals.reply(answer), str(answer))
            return
        try:
            written = self._responder.slices.begin(_write(answer, run.form), run.loop)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the job waiting
            self._finish(run, self._responder.instead(error), _UNWRITTEN)
            return
        if isinstance(written, asyncio.Future):
            run.cancel_by(written.cancel)
            written.add_done_callback(partial(self._written, run))
        else:
            self._finish(run, written, "")

    def _written(self, run: Run, written: asyncio.Future[Reply]) -> None:
        """An answer that takes long to write is written."""
        if written.cancelled() or run.job.state != "queued":
            return
        error = written.exception()
        if error is None:
            self._finish(run, written.result(), "")
        else:
            self._finish(run, self._responder.instead(error), _UNWRITTEN)

    def _finish(self, run: Run, reply: Reply, cause: str) -> None:
        """Write the answer down; nobody hears of it before, lest a crash take it back."""
        run.job.cancel = None
        run.over()
        size = sum(map(len, reply.parts))
        if size > self._store.limits.max_bytes:
            self._finish_large(run, reply, cause)
            return
        change = _finished(run.job.id, reply, cause, owed=bool(run.url))
        self._journal.note(change, partial(self._noted, run, reply, cause))

    def _noted(self, run: Run, reply: Reply, cause: str, trouble: str) -> None:
        """The answer is on the disk, or, if that has `trouble`, at least here."""
        if run.job.state != "queued":
            return  # It was cancelled meanwhile.
        self._keep(run.job, reply, cause)
        if run.url:
            self._post(run.url, run.job.id, reply, Told(run.job.id))

    def _keep(self, job: Job, reply: Reply, cause: str) -> None:
        now = time.monotonic()
        if reply.status == 200:
            self._store.finish(job, now, reply, sum(map(len, reply.parts)))
        else:
            self._store.fail(job, now, cause, reply)

    def _finish_large(self, run: Run, reply: Reply, cause: str) -> None:
        """An answer that is not kept; until it is posted, the request is."""
        job = run.job
        self._keep(job, reply, cause)
        end = Finished(job.id, "failed", time.time(), job.error, None, owed=False)
        if run.url:
            self._post(run.url, job.id, reply, end)
        else:
            self._journal.note(end)

    def post_left(self, left: Left) -> None:
        """Post an answer that an earlier server owed."""
        assert left.answer is not None
        self._webhooks.check(left.asked.url)
        self._post(left.asked.url, left.id, reply_of(left.answer), Told(left.id))

    def _post(self, url: str, id_: str, reply: Reply, change: Told | Finished) -> None:
        """The answer as it is, also where it is too large to be kept for fetching."""
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        headers |= {
            "Content-Type": reply.content_type.decode(),
            "Tuili-Job": id_,
            "Tuili-Job-State": "done" if reply.status == 200 else "failed",
            "Idempotency-Key": id_,
        }
        over = partial(self._journal.note, change)
        self._webhooks.post(url, b"".join(reply.parts), headers, over)


def _write(answer: InferResponse, form: Form) -> Steps[Reply]:
    text, blobs = yield from write_body(answer, form)
    if not blobs:
        return Reply(200, text)
    headers = ((b"Inference-Header-Content-Length", b"%d" % size_of(text)),)
    # Copies: outputs may be rows of a batch that others share.
    return Reply(200, [*text, *(bytes(blob) for blob in blobs)], OCTETS, headers)


def _finished(id_: str, reply: Reply, cause: str, *, owed: bool) -> Finished:
    headers = tuple((name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in reply.headers)  # fmt: skip
    answer = Answer(reply.status, reply.content_type.decode(), headers, reply.parts)
    state = "done" if reply.status == 200 else "failed"
    return Finished(id_, state, time.time(), cause, answer, owed)


def reply_of(answer: Answer) -> Reply:
    """An answer that was written down."""
    headers = tuple((name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in answer.headers)  # fmt: skip
    return Reply(answer.status, answer.parts, answer.content_type.encode(), headers)

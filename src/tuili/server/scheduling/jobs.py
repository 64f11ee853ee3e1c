"""Jobs: requests whose answers are fetched later; what is kept, for how long, within what bounds.

    queued ──► done | failed          the model answered
       └─────► cancelled              the caller took it back

A finished job is kept for `keep_s` seconds. Results count towards `max_bytes`, and all that are
finished towards `max_finished`: for a new one the oldest go first. A job with an idempotency key
that is known is the job it was. Where jobs are written down, `on_forget` hears which need not be.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from tuili.errors import Conflict, NotFound, Overloaded

KEEP_S: Final = 600.0

State = Literal["queued", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds of a store; `max_waiting...` count jobs that are not finished."""

    max_waiting: int = 1000
    max_waiting_bytes: int = 1 << 30  # of their requests
    max_bytes: int = 256 << 20
    max_finished: int = 50_000  # a job without any answer takes a kilobyte
    keep_s: float = KEEP_S


@dataclass(slots=True)
class Job:
    """One request: `result` is what a transport made of the answer, of `size` bytes."""

    id: str
    model: str
    key: str = ""
    request_bytes: int = 0
    state: State = "queued"
    finished: float = 0.0
    result: Any = None
    error: str = ""
    size: int = 0
    cancel: Callable[[], None] | None = None


class JobStore:
    """The jobs of one server."""

    def __init__(
        self, limits: JobLimits | None = None, on_forget: Callable[[Job], None] | None = None
    ) -> None:
        self.limits = limits or JobLimits()
        self._on_forget = on_forget
        self._jobs: dict[str, Job] = {}
        self._keys: dict[str, str] = {}
        self._finished: OrderedDict[str, Job] = OrderedDict()
        self._bytes = 0
        self._waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return self._jobs.get(job.id) is job

    @property
    def waiting(self) -> int:
        """How many jobs have no answer yet."""
        return len(self._jobs) - len(self._finished)

    def known(self, key: str, model: str, now: float) -> Job | None:
        """The job that was made with this idempotency key, if it is kept still.

        Conflict when it is another model's: nobody wants that answer for this request.
        """
        self._expire(now)
        job = self._jobs.get(self._keys.get(key, "")) if key else None
        if job is not None and job.model != model:
            raise Conflict(
                f"the idempotency key {key!r} is that of a job of model {job.model!r}, not of "
                f"{model!r}; a new request needs a new key"
            )
        return job

    def add(self, id_: str, model: str, now: float, key: str = "", request_bytes: int = 0) -> Job:
        """A new job; Overloaded when too many wait."""
        self._expire(now)
        limits = self.limits
        if self.waiting >= limits.max_waiting:
            raise Overloaded(
                f"{self.waiting} jobs wait for their answers, which is the limit; fetch or cancel "
                "some, or try again later"
            )
        if self._waiting_bytes + request_bytes > limits.max_waiting_bytes:
            raise Overloaded(
                f"jobs of {self._waiting_bytes} bytes wait for their answers, and {request_bytes} "
                f"more would be above the limit of {limits.max_waiting_bytes}; cancel some, or try "
                "again later"
            )
        job = Job(id_, model, key, request_bytes)
        self._take(job)
        return job

    def restore(self, job: Job) -> None:
        """A job that an earlier server had; those that ended in the order of their ends."""
        self._take(job)
        if job.state != "queued":
            self._waiting_bytes -= job.request_bytes
            self._keep(job)

    def withdraw(self, job: Job) -> None:
        """A job that was never taken."""
        del self._jobs[job.id]
        self._waiting_bytes -= job.request_bytes
        self._forget_key(job)

    def _take(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._waiting_bytes += job.request_bytes
        if job.key:
            self._keys[job.key] = job.id

    def get(self, id_: str, now: float) -> Job:
        """A job by its id; NotFound when it never was, or is not kept any more."""
        self._expire(now)
        job = self._jobs.get(id_)
        if job is None:
            raise NotFound(
                f"there is no job {id_!r}: answers are kept for {self.limits.keep_s:g} s and "
                f"{self.limits.max_bytes} bytes"
            )
        return job

    def finish(self, job: Job, now: float, result: Any, size: int) -> None:
        """The answer came."""
        if size > self.limits.max_bytes:
            # The others stay: their room would not do.
            self.fail(job, now, f"the answer of {size} bytes is larger than the "
                      f"{self.limits.max_bytes} bytes kept", None)  # fmt: skip
            return
        job.result = result
        self._end(job, "done", now, size)

    def fail(self, job: Job, now: float, error: str, result: Any) -> None:
        """An error came; `result` is what the transport tells of it."""
        job.error, job.result = error, result
        self._end(job, "failed", now)

    def cancel(self, job: Job, now: float) -> None:
        """Take a job back if it waits, else forget its answer."""
        if job.id in self._finished:
            self._forget(job)
            return
        cancel, job.cancel = job.cancel, None
        self._end(job, "cancelled", now)
        if cancel is not None:
            cancel()

    def _end(self, job: Job, state: State, now: float, size: int = 0) -> None:
        job.state, job.finished, job.cancel, job.size = state, now, None, size
        self._waiting_bytes -= job.request_bytes
        self._keep(job)

    def _keep(self, job: Job) -> None:
        job.size += len(job.key)
        self._finished[job.id] = job
        self._bytes += job.size
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest that are finished; the newest fits."""
        limits = self.limits
        while self._bytes > limits.max_bytes or len(self._finished) > limits.max_finished:
            self._forget(next(iter(self._finished.values())))

    def _expire(self, now: float) -> None:
        while self._finished:
            oldest = next(iter(self._finished.values()))
            if now < oldest.finished + self.limits.keep_s:
                return
            self._forget(oldest)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id], self._finished[job.id]
        self._forget_key(job)
        self._bytes -= job.size
        if self._on_forget is not None:
            self._on_forget(job)

    def _forget_key(self, job: Job) -> None:
        if job.key and self._keys.get(job.key) == job.id:
            del self._keys[job.key]

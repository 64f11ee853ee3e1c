"""Finisher: what becomes of a batch that ran: answered, run once more, or failed."""

from __future__ import annotations

import logging
import time

from tuili.errors import InternalError, TuiliError
from tuili.server.execution.pending import Pending
from tuili.server.execution.running import InstanceDied, Outcome
from tuili.server.scheduling.queue import RequestQueue
from tuili.server.scheduling.sequences import SequenceQueue
from tuili.server.serving.answering import Answers
from tuili.server.serving.responding import RowsMixed
from tuili.server.telemetry.statistics import Statistics
from tuili.server.tracing.trace import Open

_log = logging.getLogger("tuili.server")

Queue = RequestQueue[Pending] | SequenceQueue[Pending]


class Finisher:
    """Ends batches; no request of a batch is left without an answer or another run."""

    def __init__(
        self, queue: Queue, answers: Answers, statistics: Statistics, *, idempotent: bool = True
    ) -> None:
        self._queue = queue
        self._answers = answers
        self._statistics = statistics
        self._idempotent = idempotent

    def finish(self, batch: list[Pending], left: str, outcome: Outcome) -> None:
        """Answer a batch, or see to it that its requests get another chance."""
        if Open.count:
            _note(batch, outcome)
        if isinstance(outcome.error, InstanceDied):
            self._retry(batch, outcome.error)
        elif outcome.outputs is None:
            self._failed(batch, outcome.error or InternalError("no outputs"))
        elif batch[0].end is not None:
            self._answers.end_stream(batch[0], outcome)
        else:
            self._answer(batch, left, outcome)

    def taken(self, batch: list[Pending], left: str, outcome: Outcome) -> None:
        """A batch ran whose requests are answered any number of times; its answers may go on."""
        rows = sum([item.rows for item in batch])
        ran_ns = outcome.done_ns - outcome.joined_ns
        self._statistics.record_batch(rows, len(batch), (0, ran_ns, 0), left)

    def _answer(self, batch: list[Pending], left: str, outcome: Outcome) -> None:
        rows = sum([item.rows for item in batch])
        try:
            self._answers.split(batch, outcome, rows)
        except RowsMixed as error:
            if isinstance(self._queue, RequestQueue) and len(batch) > 1:
                _log.warning("%s; its requests are not joined any more", error)
                self._queue.stop_merging()
            self._failed(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            _log.exception("a batch could not be split")
            for item in batch:
                self._answers.fail(item, InternalError(f"{type(error).__name__}: {error}"), "OTHER")
            return
        # A host may begin its run before this side has noted that the batch was sent.
        split_ns = max(time.monotonic_ns() - outcome.done_ns, 0)
        blank = 0
        if isinstance(self._queue, SequenceQueue):
            blank = sum([item.is_blank for item in batch])
        joined_ns = outcome.joined_ns
        times_ns = joined_ns - outcome.started_ns, outcome.done_ns - joined_ns, split_ns
        self._statistics.record_batch(rows, len(batch) - blank, times_ns, left, blank)

    def _failed(self, batch: list[Pending], error: TuiliError) -> None:
        # Rows without a request are there for the model's sake, in the next run as in this one.
        asked = [item for item in batch if not item.is_blank]
        if len(asked) == 1:
            self._answers.fail(asked[0], error, "BACKEND")
            return
        # One bad request must not fail its neighbours: each gets a run of its own.
        for item in asked:
            self._again(item)

    def _retry(self, batch: list[Pending], error: TuiliError) -> None:
        """Run what a dying instance had once more, each request alone: one of them may be why."""
        waited = isinstance(error, InstanceDied) and not error.started and self._keeps_state()
        for item in batch:
            if waited:
                self._once_more(item)
            elif item.retried or not self._idempotent or not self._keeps_state():
                self._answers.fail(item, error, "BACKEND")
            else:
                item.retried = True
                self._again(item)

    def _keeps_state(self) -> bool:
        # What a model itself kept of a sequence went with the instance.
        return isinstance(self._queue, RequestQueue) or self._queue.keeps_state

    def _again(self, item: Pending) -> None:
        item.lane = ("alone", id(item))
        self._once_more(item)

    def _once_more(self, item: Pending) -> None:
        if item.reply is None:
            self._answers.skip(item)
        else:
            self._queue.readmit(item)


def _note(batch: list[Pending], outcome: Outcome) -> None:
    """Tell the traces of a batch's requests when it ran."""
    for item in batch:
        if item.request.trace is not None:
            item.request.trace.ran(
                item.arrived_ns, outcome.started_ns, outcome.joined_ns, outcome.done_ns
            )

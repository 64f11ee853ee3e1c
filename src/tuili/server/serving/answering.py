"""Answers: from what a run made, or why it failed, to the answer of each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tuili.backends.requests import Answered
from tuili.errors import DeadlineExceeded, TuiliError
from tuili.server.execution.express import answer_raw
from tuili.server.execution.pending import Pending, Reply, StreamReply
from tuili.server.execution.running import Outcome
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.messages import Array, InferResponse, Parameters
from tuili.server.protocol.signature import Signature
from tuili.server.scheduling.cache import ResponseCache, key_of, told_of
from tuili.server.scheduling.layout import Layout
from tuili.server.scheduling.sequences import SequenceQueue
from tuili.server.serving.responding import check_rows, check_scattered, select_outputs
from tuili.server.serving.shared_cache import SharedAnswers
from tuili.server.telemetry.statistics import Statistics

_log = logging.getLogger("tuili.server")
_NS: Final = 1_000_000_000


class Answers:
    """Answers the requests of one model version, each once, and counts them."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        signature: Signature,
        version: str,
        statistics: Statistics,
        *,
        sequences: SequenceQueue[Pending] | None = None,
        cache: ResponseCache | None = None,
        shared: SharedAnswers | None = None,
        layout: Layout | None = None,
        is_told: bool = False,
    ) -> None:
        """`is_told`: the model sees what a request says beside its inputs."""
        self._signature = signature
        self._version = version
        self._statistics = statistics
        self._sequences = sequences
        self._cache = cache
        self._cache_owner: int | bytes = cache.new_owner() if cache is not None else 0
        self._shared = shared.cache if shared is not None else None
        if shared is not None:
            self._cache_owner = shared.content
        self._layout = layout
        self._is_told = is_told

    def from_cache(self, item: Pending, run: Callable[[Pending], None]) -> None:
        """Answer if the same was asked before; otherwise note the key for the answer, and `run`.

        Where a cache is shared with other servers, that may be decided only later.
        """
        assert self._cache is not None
        told = told_of(item.request, self._signature.outputs) if self._is_told else ""
        item.cache_key = key_of(self._cache_owner, item.arrays, told)
        outputs = self._cache.get(item.cache_key, item.arrived)
        if outputs is None and self._shared is not None:
            self._shared.look_up(item.cache_key, lambda found: self._looked(item, found, run))
        else:
            self._looked(item, outputs, run)

    def _looked(
        self, item: Pending, outputs: Mapping[str, Array] | None, run: Callable[[Pending], None]
    ) -> None:
        looked_ns = time.monotonic_ns() - item.arrived_ns
        if outputs is None:
            self._statistics.cache_miss.add(looked_ns)
            run(item)
            return
        self._statistics.cache_hit.add(looked_ns)
        reply, item.reply, item.cache_key = item.reply, None, b""
        if reply is not None:
            self._deliver(item, reply, outputs, item.arrived_ns)

    def from_old(self, item: Pending) -> bool:
        """Answer from the cache however old that answer is; false when there is none."""
        if self._cache is None:
            return False
        outputs = self._cache.get(item.cache_key, item.arrived, stale=True)
        reply, item.reply = item.reply, None
        if outputs is None or reply is None:
            item.reply = reply
            return False
        item.cache_key = b""
        self._deliver(item, reply, outputs, item.arrived_ns)
        return True

    def split(self, batch: Sequence[Pending], outcome: Outcome, rows: int) -> None:
        """Give each request of a batch its rows; RowsMixed when they cannot be told apart."""
        self._statistics.last_inference_ms = time.time_ns() // 1_000_000
        if outcome.answers is not None:
            self._each(batch, outcome.answers, outcome.started_ns)
            return
        outputs = outcome.outputs or {}
        if batch[0].express is not None and answer_raw(
            batch, rows, outputs, outcome.started_ns, self._statistics
        ):
            return
        if self._layout is not None:
            self._split_layout(self._layout, batch, outputs, outcome.started_ns)
            return
        whole = len(batch) == 1
        if not whole:
            check_rows(self._signature, outputs, rows)
        start = 0
        for item in batch:
            stop = start + item.rows
            start, first = stop, start
            if item.reply is None and self._sequences is None:
                continue
            mine = outputs if whole else {n: a[first:stop] for n, a in outputs.items()}
            self._give(item, mine, outcome.started_ns)

    def _split_layout(
        self,
        layout: Layout,
        batch: Sequence[Pending],
        outputs: Mapping[str, Array],
        started_ns: int,
    ) -> None:
        by_rows = {name: array for name, array in outputs.items() if layout.splits_by_rows(name)}
        rows = layout.filled(sum([item.rows for item in batch]))
        if self._signature.max_batch_size:
            check_rows(self._signature, by_rows, rows)
        check_scattered(self._signature, layout, batch, outputs)
        for item, mine in zip(batch, layout.divide(batch, outputs), strict=True):
            self._give(item, mine, started_ns)

    def _give(self, item: Pending, outputs: Mapping[str, Array], started_ns: int) -> None:
        if self._sequences is not None:
            # A cancelled request has moved the state on all the same.
            outputs = self._sequences.finished(item, outputs, time.monotonic()) or {}
        reply, item.reply = item.reply, None
        if reply is not None:
            self._deliver(item, reply, outputs, started_ns)

    def _each(self, batch: Sequence[Pending], answers: Sequence[Answered], started_ns: int) -> None:
        """Give each request the answer, or the error, that the model made for it."""
        self._statistics.last_inference_ms = time.time_ns() // 1_000_000
        for item, answer in zip(batch, answers, strict=True):
            if answer.error is not None:
                self.fail(item, answer.error, "BACKEND")
                continue
            outputs = answer.outputs
            if self._sequences is not None:
                outputs = self._sequences.finished(item, outputs, time.monotonic()) or {}
            reply, item.reply = item.reply, None
            if reply is not None:
                self._deliver(item, reply, outputs, started_ns, answer.parameters)

    def part(self, item: Pending, reply: StreamReply, answer: Answered, final: bool) -> bool:
        """One of many answers to a request; false when no more are wanted."""
        began_ns, item.part_ns = item.part_ns, time.monotonic_ns()
        made_ns, number = item.part_ns - began_ns, item.parts
        if item.reply is None:
            self._statistics.record_response(number, "cancel", made_ns, 0)
            return False
        item.parts += 1
        item.retried = True  # What was answered in part must not be answered again.
        request = item.request
        if answer.error is not None:
            # Of this answer alone: others may follow.
            reply(answer.error, final)
        else:
            try:
                found = select_outputs(self._signature, request, answer.outputs)
            except Exception as error:  # noqa: BLE001 - as in `_deliver`
                self.fail(item, of_tree(error, "an answer could not be made"), "OTHER")
                return False
            told = answer.parameters or None
            reply(InferResponse(request.model, self._version, found, request.id, told), final)
        became = "success" if answer.error is None else "fail"
        out_ns = time.monotonic_ns() - item.part_ns
        self._statistics.record_response(number, became, made_ns, out_ns)
        return True

    def end_stream(self, item: Pending, outcome: Outcome) -> None:
        """The last answer of a request was given."""
        end = item.end
        self.skip(item)
        if item.reply is None or end is None:
            return
        item.reply = None
        now_ns = time.monotonic_ns()
        queued_ns = outcome.started_ns - item.arrived_ns
        self._statistics.record_success(queued_ns, now_ns - item.arrived_ns)
        end(item)

    def fail(self, item: Pending, error: TuiliError, reason: str) -> None:
        """Answer with an error, unless nobody waits for it any more."""
        self.skip(item)
        reply, item.reply = item.reply, None
        if reply is None:
            return
        self._statistics.record_failure(reason, time.monotonic_ns() - item.arrived_ns)
        item.arrays, item.plain = {}, None
        hand_over(reply, error)

    def skip(self, item: Pending) -> None:
        """A request that had left the queue made nothing: its sequence goes on without it."""
        if self._sequences is not None:
            self._sequences.finished(item, None, time.monotonic())

    def _deliver(
        self,
        item: Pending,
        reply: Reply,
        outputs: Mapping[str, Array],
        started_ns: int,
        parameters: Parameters | None = None,
    ) -> None:
        """Answer one request with its part of the outputs."""
        request = item.request
        answer: InferResponse | TuiliError
        now_ns = time.monotonic_ns()
        try:
            if item.deadline and now_ns > item.deadline * _NS:
                raise DeadlineExceeded("Request timeout expired")
            answer = InferResponse(
                request.model,
                self._version,
                select_outputs(self._signature, request, outputs),
                request.id,
                parameters or None,
            )
        except Exception as error:  # noqa: BLE001 - one odd output must not cost the neighbours
            answer = of_tree(error, "an answer could not be made")
            self._statistics.record_failure("OTHER", now_ns - item.arrived_ns)
        else:
            self._statistics.record_success(started_ns - item.arrived_ns, now_ns - item.arrived_ns)
            # What a model tells beside its outputs may be of this request alone.
            if item.cache_key and self._cache is not None and not parameters:
                self._cache.put(item.cache_key, outputs, now_ns / _NS)
                if self._shared is not None:
                    self._shared.keep(item.cache_key, outputs)
        # The arrays are views of the transport's receive buffer: let go before it is reused.
        item.arrays, item.plain = {}, None
        hand_over(reply, answer)


def hand_over(reply: Reply, answer: InferResponse | TuiliError) -> None:
    """Call a transport; if it breaks its promise not to raise, the batch's others still count."""
    if isinstance(answer, TuiliError):
        # Its frames hold the request and its tensors, and they hold it.
        answer.__traceback__ = None
    try:
        reply(answer)
    except Exception:  # noqa: BLE001 - whatever it is, it is logged
        _log.exception("a transport could not take an answer")

"""Servable: one live model version with its queue, instances and statistics; the batcher's shell.

All methods run on the event loop. A request is pushed into the queue; one `_flush` per loop tick
takes batches out while instances are free, so whatever one tick brought becomes one batch, and
while all instances are busy the next batch grows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tuili.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    TuiliError,
    Unavailable,
)
from tuili.server.execution import InstanceDied, Outcome, Runner, execute
from tuili.server.hosts import Host
from tuili.server.pending import Pending, Reply, StreamReply
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    Parameters,
)
from tuili.server.protocol.signature import Signature, prefix
from tuili.server.responding import RowsMixed, check_rows, select_outputs
from tuili.server.scheduling.cache import ResponseCache, key_of
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.queue import RequestQueue
from tuili.server.scheduling.sequences import SequencePolicy, SequenceQueue
from tuili.server.shared_memory import Regions
from tuili.server.telemetry.statistics import Statistics

_log = logging.getLogger("tuili.server")
_NS: Final = 1_000_000_000
_OVERLAP_FROM_S: Final = 300e-6


class Servable:
    """One model version that answers requests."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        signature: Signature,
        version: str,
        instances: Sequence[Runner],
        policy: BatchPolicy,
        statistics: Statistics,
        *,
        config: dict[str, Any] | None = None,
        decoupled: bool = False,
        idempotent: bool = True,
        sequences: SequencePolicy | None = None,
        adaptive: bool = False,
        cache: ResponseCache | None = None,
        placement: Placement | None = None,
        regions: Regions | None = None,
    ) -> None:
        self.signature = signature
        self.version = version
        self.statistics = statistics
        self.config = config or {}
        self.decoupled = decoupled
        self.hosts: Sequence[Host] = ()
        self._policy = policy
        self._idempotent = idempotent
        self._cache = cache
        self._cache_owner = cache.new_owner() if cache is not None else 0
        self._broken, self._given_up = "", False
        self._placement = placement or Placement()
        self._regions = regions
        self._run_s = 0.0
        self._sequences: SequenceQueue[Pending] | None = None
        self._queue: RequestQueue[Pending] | SequenceQueue[Pending] = RequestQueue(
            policy, self._rows_worth if adaptive else None
        )
        if sequences is not None:
            self._queue = self._sequences = SequenceQueue(signature.model, sequences)
        self._instances = tuple(instances)
        self._free = list(instances)
        self._running: set[Runner] = set()
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._draining = False
        self._idle: asyncio.Future[None] | None = None

    # ---- requests
    def submit(self, request: InferRequest, reply: Reply) -> Pending:
        """Check and queue a request; raises what it is refused for."""
        if self._draining:
            raise Unavailable(
                f"'{self.signature.model}' version {self.version} is not at ready state"
            )
        if self._given_up and self.broken:
            raise Unavailable(f"{prefix(request)}'{self.signature.model}' is {self._broken}")
        checked = self.signature.check(request)
        now_ns = time.monotonic_ns()
        item = Pending(
            request,
            reply,
            checked.arrays,
            checked.rows,
            checked.lane,
            0,
            now_ns,
            now_ns / _NS,
            request.deadline or 0.0,
            self,
        )
        if self._cache is not None and self._answer_from_cache(self._cache, item):
            return item
        timeout_s = self._apply_parameters(item, request.parameters) if request.parameters else 0.0
        try:
            self._queue.push(item, timeout_s)
        except TuiliError as error:
            self.statistics.record_failure("REJECTED", 0)
            raise type(error)(prefix(request) + str(error)) from None
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        return item

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Pending:
        """As `submit`, for a model that answers any number of times."""
        item = self.submit(request, lambda answer: reply(answer, True))

        def part(outputs: Mapping[str, Array]) -> bool:
            return self._deliver_part(item, reply, outputs)

        item.part = part
        item.end = lambda: reply(None, True)
        return item

    def _answer_from_cache(self, cache: ResponseCache, item: Pending) -> bool:
        """Answer at once if the same was asked before; otherwise note the key for the answer."""
        item.cache_key = key_of(self._cache_owner, item.arrays)
        outputs = cache.get(item.cache_key, item.arrived)
        looked_ns = time.monotonic_ns() - item.arrived_ns
        if outputs is None:
            self.statistics.cache_miss.add(looked_ns)
            return False
        self.statistics.cache_hit.add(looked_ns)
        reply, item.reply, item.cache_key = item.reply, None, b""
        if reply is not None:
            self._deliver(item, reply, outputs, item.arrived_ns)
        return True

    def cancel(self, item: Pending) -> None:
        """Drop a request: out of the queue if it waits, its answer ignored if it runs."""
        item.reply = None
        self._queue.remove(item)
        self.statistics.record_failure("CANCELED", time.monotonic_ns() - item.arrived_ns)
        self._settle()

    def pending(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    # ---- life
    @property
    def broken(self) -> str:
        """Why it cannot answer now, or "" if it can."""
        return "" if any(each.available for each in self._instances) else self._broken

    def instances_changed(self, reason: str, *, given_up: bool) -> None:
        """Instances went or came back; while they are `given_up`, nobody waits for them."""
        self._broken, self._given_up = reason, given_up
        idle = [each for each in self._instances if each.available and each not in self._running]
        self._free = idle
        if given_up and not any(each.available for each in self._instances):
            for item in self._queue.drain():
                self._fail(item, Unavailable(prefix(item.request) + reason), "BACKEND")
        self._flush()

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new requests and wait for those here; false when time ran out first."""
        self._draining = True
        if self._is_idle():
            return True
        if self._idle is None:
            self._idle = self._loop.create_future()
        try:
            await asyncio.wait_for(asyncio.shield(self._idle), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Fail what still waits, and release the instances once the running batches end."""
        self._draining = True
        for item in self._queue.drain():
            self._fail(item, Unavailable("the model was unloaded"), "REJECTED")
        if self._timer is not None:
            self._timer.cancel()
        await self.drain()
        await asyncio.gather(*(asyncio.to_thread(each.close) for each in self._instances))

    # ---- the batcher's shell
    def _apply_parameters(self, item: Pending, parameters: Parameters) -> float:
        """Set the priority level; returns the request's own timeout in seconds."""
        priority = parameters.get("priority", 0)
        item.level = self._policy.level_of(int(priority))
        if self._sequences is not None:
            item.sequence = _sequence_id(parameters.get("sequence_id", 0))
            item.starts = bool(parameters.get("sequence_start", False))
            item.ends = bool(parameters.get("sequence_end", False))
        return int(parameters.get("timeout", 0)) / 1e6

    def _flush(self) -> None:
        self._flush_due = False
        now = time.monotonic()
        queue = self._queue
        for item in queue.expire(now):
            text = prefix(item.request) + "Request timeout expired"
            self._fail(item, DeadlineExceeded(text), "REJECTED")
        while self._free and not self._better_wait():
            batch = queue.take(now)
            if not batch:
                break
            if self._start(batch, queue.left.value):
                # The loop ran a model: let it look at the sockets before it runs the next one.
                break
        starving = self._free and len(queue) and not self._running
        if starving and not self._flush_due and not self._policy.max_delay_s:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        self._arm()
        self._settle()

    def _better_wait(self) -> bool:
        """Whether a second batch in the same host would only make both small.

        Writing a batch while the last one runs hides the hop, which pays for runs longer than it.
        """
        return (
            bool(self.hosts)
            and len(self._running) >= len(self.hosts)
            and self._run_s < _OVERLAP_FROM_S
        )

    def _rows_worth(self, item: Pending) -> int:
        size = sum([array.size for array in item.arrays.values()])
        return self._placement.rows_worth(size // item.rows, self._policy.max_rows)

    def _arm(self) -> None:
        """See to it that `_flush` runs when a delay or a request's time ends."""
        moment = self._queue.wake_at()
        if moment is None or (self._timer is not None and self._timer_at <= moment):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = moment
        delay = max(moment - time.monotonic(), 0.0)
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush()

    def _start(self, batch: list[Pending], left: str) -> bool:
        """Run a batch; true when it ran right here."""
        instance = self._free.pop()
        size = 0
        for item in batch:
            for array in item.arrays.values():
                size += array.size
        model = instance.model
        if model is not None and batch[0].part is None and self._placement.inline(size):
            outcome = execute(model, batch)
            self._learn(size, outcome, on_loop=True)
            self._finish(instance, batch, left, outcome)
            return True
        self._running.add(instance)
        instance.run_beside(
            self._loop,
            batch,
            lambda outcome: self._finish_beside(instance, batch, size, left, outcome),
        )
        return False

    def _finish_beside(
        self, instance: Runner, batch: list[Pending], size: int, left: str, outcome: Outcome
    ) -> None:
        self._learn(size, outcome, on_loop=False)
        self._finish(instance, batch, left, outcome)
        if not self._flush_due:
            self._flush()

    def _learn(self, size: int, outcome: Outcome, *, on_loop: bool) -> None:
        if outcome.outputs is not None:
            seconds = (outcome.done_ns - outcome.joined_ns) / _NS
            self._run_s += 0.1 * (seconds - self._run_s)
            self._placement.record(size, seconds, on_loop=on_loop)

    def _finish(self, instance: Runner, batch: list[Pending], left: str, outcome: Outcome) -> None:
        self._running.discard(instance)
        end = batch[0].end
        if end is not None and outcome.outputs is not None:
            self._finish_stream(instance, batch[0], end, left, outcome)
            return
        if instance.available:
            self._free.append(instance)
        if isinstance(outcome.error, InstanceDied):
            self._retry(batch, outcome.error)
            return
        if outcome.outputs is None:
            self._finish_failed(batch, outcome.error or InternalError("no outputs"))
            return
        rows = sum([item.rows for item in batch])
        try:
            self._answer(batch, outcome, rows)
        except RowsMixed as error:
            _log.warning("%s; its requests are not joined any more", error)
            if isinstance(self._queue, RequestQueue):
                self._queue.stop_merging()
            self._finish_failed(batch, error)
            return
        split_ns = time.monotonic_ns() - outcome.done_ns
        self.statistics.record_batch(
            rows,
            len(batch),
            (outcome.joined_ns - outcome.started_ns, outcome.done_ns - outcome.joined_ns, split_ns),
            left,
        )

    def _deliver_part(
        self, item: Pending, reply: StreamReply, outputs: Mapping[str, Array]
    ) -> bool:
        """One of many answers to a request; false when no more are wanted."""
        if item.reply is None:
            return False
        request = item.request
        try:
            found = select_outputs(self.signature, request, outputs, self._regions)
        except TuiliError as error:
            self._fail(item, error, "OTHER")
            return False
        item.retried = True  # What was answered in part must not be answered again.
        reply(InferResponse(request.model, self.version, found, request.id), False)
        return True

    def _finish_stream(
        self,
        instance: Runner,
        item: Pending,
        end: Callable[[], None],
        left: str,
        outcome: Outcome,
    ) -> None:
        """The last answer of a request was given."""
        if instance.available:
            self._free.append(instance)
        ran_ns = outcome.done_ns - outcome.joined_ns
        self.statistics.record_batch(item.rows, 1, (0, ran_ns, 0), left)
        if item.reply is None:
            return
        item.reply = None
        now_ns = time.monotonic_ns()
        queued_ns = outcome.started_ns - item.arrived_ns
        self.statistics.record_success(queued_ns, now_ns - item.arrived_ns)
        end()

    def _finish_failed(self, batch: list[Pending], error: TuiliError) -> None:
        if self._sequences is not None:
            for item in batch:
                if item.reply is None:
                    self._sequences.finished(item, None, time.monotonic())
        waiting = [item for item in batch if item.reply is not None]
        if len(batch) > 1:
            # One bad request must not fail its neighbours: each gets a run of its own.
            for item in waiting:
                item.lane = ("alone", id(item))
                self._queue.readmit(item)
            return
        for item in waiting:
            self._fail(item, error, "BACKEND")

    def _retry(self, batch: list[Pending], error: TuiliError) -> None:
        """Run what a dying instance had once more, each request alone: one of them may be why."""
        for item in batch:
            if item.reply is None:
                if self._sequences is not None:
                    self._sequences.finished(item, None, time.monotonic())
                continue
            if item.retried or not self._idempotent:
                self._fail(item, error, "BACKEND")
            else:
                item.retried = True
                item.lane = ("alone", id(item))
                self._queue.readmit(item)

    def _fail(self, item: Pending, error: TuiliError, reason: str) -> None:
        if self._sequences is not None:
            self._sequences.finished(item, None, time.monotonic())
        reply, item.reply = item.reply, None
        if reply is None:
            return
        self.statistics.record_failure(reason, time.monotonic_ns() - item.arrived_ns)
        hand_over(reply, error)

    def _answer(self, batch: list[Pending], outcome: Outcome, rows: int) -> None:
        outputs = outcome.outputs or {}
        if len(batch) > 1:
            check_rows(self.signature, outputs, rows)
        statistics = self.statistics
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        start = 0
        whole = len(batch) == 1
        for item in batch:
            stop = start + item.rows
            reply, item.reply = item.reply, None
            start, first = stop, start
            if reply is None and self._sequences is None:
                continue
            mine = outputs if whole else {n: a[first:stop] for n, a in outputs.items()}
            if self._sequences is not None:
                # A cancelled request has moved the state on all the same.
                mine = self._sequences.finished(item, mine, time.monotonic()) or {}
            if reply is not None:
                self._deliver(item, reply, mine, outcome.started_ns)
            start = stop

    def _deliver(
        self, item: Pending, reply: Reply, outputs: Mapping[str, Array], started_ns: int
    ) -> None:
        """Answer one request with its part of the outputs."""
        request = item.request
        answer: InferResponse | TuiliError
        now_ns = time.monotonic_ns()
        try:
            if item.expires and now_ns > item.expires * _NS:
                raise DeadlineExceeded(prefix(request) + "Request timeout expired")
            answer = InferResponse(
                request.model,
                self.version,
                select_outputs(self.signature, request, outputs, self._regions),
                request.id,
            )
        except TuiliError as error:
            answer = error
            self.statistics.record_failure("OTHER", now_ns - item.arrived_ns)
        else:
            self.statistics.record_success(started_ns - item.arrived_ns, now_ns - item.arrived_ns)
            if item.cache_key and self._cache is not None:
                self._cache.put(item.cache_key, outputs, now_ns / _NS)
        # The arrays are views of the transport's receive buffer: let go before it is reused.
        item.arrays = {}
        hand_over(reply, answer)

    def _is_idle(self) -> bool:
        return not len(self._queue) and not self._running

    def _settle(self) -> None:
        """Tell a drain that waits that nothing is left."""
        if self._idle is not None and not self._idle.done() and self._is_idle():
            self._idle.set_result(None)


def hand_over(reply: Reply, answer: InferResponse | TuiliError) -> None:
    """Call a transport; if it breaks its promise not to raise, the batch's others still count."""
    try:
        reply(answer)
    except Exception:  # noqa: BLE001 - whatever it is, it is logged
        _log.exception("a transport could not take an answer")


def _sequence_id(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidArgument(f"sequence_id must be a number or text, got {value!r}")
    return value

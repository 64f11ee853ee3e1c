"""Servable: one live model version that answers requests.

It checks and queues; a `Dispatcher` takes batches out and runs them, a `Finisher` decides what
becomes of each batch, and `Answers` gives every request its own. All methods run on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tuili.errors import InvalidArgument, Overloaded, TuiliError, Unavailable
from tuili.server.answering import Answers, hand_over
from tuili.server.dispatching import Dispatcher
from tuili.server.execution import Runner
from tuili.server.finishing import Finisher, Queue
from tuili.server.hosts import Host
from tuili.server.pending import Pending, Reply, StreamReply
from tuili.server.protocol.messages import Array, InferRequest, Parameters
from tuili.server.protocol.signature import Signature, prefix
from tuili.server.scheduling.cache import ResponseCache
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.policy import BatchPolicy
from tuili.server.scheduling.queue import RequestQueue
from tuili.server.scheduling.sequences import SequencePolicy, SequenceQueue
from tuili.server.shared_cache import SharedAnswers
from tuili.server.shared_memory import Regions
from tuili.server.telemetry.statistics import Statistics

_NS: Final = 1_000_000_000


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
        shared: SharedAnswers | None = None,
        placement: Placement | None = None,
        regions: Regions | None = None,
        hosts: Sequence[Host] = (),
    ) -> None:
        self.signature = signature
        self.version = version
        self.statistics = statistics
        self.config = config or {}
        self.decoupled = decoupled
        self.hosts = hosts
        self._policy = policy
        self._broken, self._given_up = "", False
        self._placement = placement or Placement()
        self._caches = cache is not None
        self._shared = shared
        self._draining = False
        self._stateful = sequences is not None
        queue: Queue
        if sequences is not None:
            queue = stateful = SequenceQueue[Pending](signature.model, sequences)
        else:
            stateful = None
            queue = RequestQueue[Pending](policy, self._rows_worth if adaptive else None)
        self._queue: Queue = queue
        self._answers = Answers(
            signature,
            version,
            statistics,
            sequences=stateful,
            cache=cache,
            shared=shared,
            regions=regions,
        )
        finisher = Finisher(queue, self._answers, statistics, idempotent=idempotent)
        self._dispatcher = Dispatcher(
            queue, instances, self._answers, finisher, self._placement, hosts=len(hosts)
        )

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
        if self._caches and not request.uncached:
            self._answers.from_cache(item, self._enqueue_or_fail)
        else:
            self._enqueue(item)
        return item

    def _enqueue(self, item: Pending) -> None:
        request = item.request
        timeout_s = self._apply_parameters(item, request.parameters) if request.parameters else 0.0
        try:
            self._queue.push(item, timeout_s)
        except TuiliError as error:
            self.statistics.record_failure("REJECTED", 0)
            if isinstance(error, Overloaded):
                raise Overloaded(prefix(request) + str(error)) from None
            raise
        self._dispatcher.wake()

    def _enqueue_or_fail(self, item: Pending) -> None:
        """As `_enqueue`, for when nobody waits above: an answer was looked for in the cache."""
        if item.reply is None:
            return
        try:
            self._enqueue(item)
        except TuiliError as error:
            reply, item.reply = item.reply, None
            hand_over(reply, error)

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Pending:
        """As `submit`, for a model that answers any number of times."""
        item = self.submit(request, lambda answer: reply(answer, True))

        def part(outputs: Mapping[str, Array]) -> bool:
            return self._answers.part(item, reply, outputs)

        item.part = part
        item.end = lambda: reply(None, True)
        return item

    def cancel(self, item: Pending) -> None:
        """Drop a request: out of the queue if it waits, its answer ignored if it runs."""
        item.reply = None
        self._queue.remove(item)
        self.statistics.record_failure("CANCELED", time.monotonic_ns() - item.arrived_ns)
        self._dispatcher.settle()

    def pending(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def _apply_parameters(self, item: Pending, parameters: Parameters) -> float:
        """Set the priority level; returns the request's own timeout in seconds."""
        priority = parameters.get("priority", 0)
        item.level = self._policy.level_of(int(priority))
        if self._stateful:
            item.sequence = _sequence_id(parameters.get("sequence_id", 0))
            item.starts = bool(parameters.get("sequence_start", False))
            item.ends = bool(parameters.get("sequence_end", False))
        return int(parameters.get("timeout", 0)) / 1e6

    def _rows_worth(self, item: Pending) -> int:
        size = sum([array.size for array in item.arrays.values()])
        return self._placement.rows_worth(size // item.rows, self._policy.max_rows)

    # ---- life
    @property
    def broken(self) -> str:
        """Why it cannot answer now, or "" if it can."""
        return "" if any(each.available for each in self._dispatcher.instances) else self._broken

    def instances_changed(self, reason: str, *, given_up: bool) -> None:
        """Instances went or came back; while they are `given_up`, nobody waits for them."""
        self._broken, self._given_up = reason, given_up
        self._dispatcher.instances_changed()
        if given_up and not any(each.available for each in self._dispatcher.instances):
            for item in self._queue.drain():
                self._answers.fail(item, Unavailable(prefix(item.request) + reason), "BACKEND")
        self._dispatcher.flush()

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new requests and wait for those here; false when time ran out first."""
        self._draining = True
        if self._shared is not None:
            await self._shared.cache.settle()
        return await self._dispatcher.wait_idle(timeout_s)

    async def close(self) -> None:
        """Fail what still waits, and release the instances once the running batches end."""
        self._draining = True
        for item in self._queue.drain():
            self._answers.fail(item, Unavailable("the model was unloaded"), "REJECTED")
        self._dispatcher.stop()
        await self.drain()
        await asyncio.gather(
            *(asyncio.to_thread(each.close) for each in self._dispatcher.instances)
        )


def _sequence_id(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidArgument(f"sequence_id must be a number or text, got {value!r}")
    return value

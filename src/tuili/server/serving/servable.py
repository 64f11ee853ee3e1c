"""Servable: one live model version that answers requests.

It checks and queues; a `Dispatcher` takes batches out and runs them, a `Finisher` decides what
becomes of each batch, and `Answers` gives every request its own. All methods run on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

from tuili.backends.requests import Answered, by_request
from tuili.errors import (
    InvalidArgument,
    Overloaded,
    TuiliError,
    Unavailable,
    Unsupported,
)
from tuili.runtime.cpu import available_threads
from tuili.server.execution.express import Buffer, Express
from tuili.server.execution.hosts import Host
from tuili.server.execution.pending import Pending, Reply, StreamReply, Ticket
from tuili.server.execution.running import Runner
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.messages import InferRequest, InferResponse, Parameters, is_part
from tuili.server.protocol.signature import Alone, Signature, prefix
from tuili.server.scheduling.deadlock import Need
from tuili.server.scheduling.gathering import Gather
from tuili.server.scheduling.ordering import Order
from tuili.server.scheduling.placement import Placement
from tuili.server.scheduling.queue import RequestQueue
from tuili.server.scheduling.resources import Claim, Resources
from tuili.server.scheduling.sequences import SequenceQueue
from tuili.server.serving.admitting import CLIENT, CLIENT_HEADER, Door
from tuili.server.serving.answering import Answers, hand_over
from tuili.server.serving.dispatching import Dispatcher, Policies
from tuili.server.serving.finishing import Finisher, Queue
from tuili.server.serving.rehearsing import unheard
from tuili.server.serving.sharing import overlap_of
from tuili.server.serving.terms import Terms
from tuili.server.telemetry.statistics import Statistics

_NS: Final = 1_000_000_000


class Servable:
    """One model version that answers requests."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        signature: Signature,
        version: str,
        instances: Sequence[Runner],
        terms: Terms,
        statistics: Statistics,
        *,
        config: dict[str, Any] | None = None,
        placement: Placement | None = None,
        hosts: Sequence[Host] = (),
        resources: Resources | None = None,
        claims: Mapping[Runner, Claim] | None = None,
    ) -> None:
        self.signature = signature
        self.version = version
        self.statistics = statistics
        self.config = config or {}
        self.hosts = list(hosts)
        self.decoupled = terms.decoupled
        if terms.decoupled:
            batched = terms.layout is None and self._takes_many(instances)
            terms = terms.for_streams(batched=batched)
        self._terms = terms
        self._default_level = terms.policy.level_of(0)
        self._broken, self._given_up = "", False
        self._draining = self._closed = False
        self._caches = statistics.caches = terms.cache is not None
        self._door = terms.door
        self._stateful = terms.sequences is not None
        self._own_ids = count(1) if self._is_iterative() else None
        self._order = Order[InferResponse | TuiliError]() if terms.in_order else None
        self._overlap = None if self._stateful else overlap_of(instances)
        self._placement = placement or Placement()
        self._queue = self._new_queue()
        told = any(host.by_request for host in self.hosts)
        told = told or any(each.model is not None and by_request(each.model) for each in instances)
        self._answers = self._new_answers(is_told=told)
        self._dispatcher = self._new_dispatcher(instances)
        if resources is not None and claims:
            self._dispatcher.share(resources, claims)
        self.before_close: Callable[[], Awaitable[None]] = _nothing

    def _new_queue(self) -> Queue:
        terms = self._terms
        if terms.sequences is not None:
            # Who waits for a slot waits for clients: no answer may wait for him.
            model, competes = self.signature.model, self._enter_order
            return SequenceQueue[Pending](model, terms.sequences, competes, terms.lost)
        worth = self._rows_worth if terms.adaptive else None
        return RequestQueue[Pending](terms.policy, worth, terms.pace)

    def _new_answers(self, *, is_told: bool) -> Answers:
        return Answers(
            self.signature,
            self.version,
            self.statistics,
            sequences=self._queue if isinstance(self._queue, SequenceQueue) else None,
            cache=self._terms.cache,
            shared=self._terms.shared,
            layout=self._terms.layout,
            is_told=is_told,
        )

    def _new_dispatcher(self, instances: Sequence[Runner]) -> Dispatcher:
        terms, gather = self._terms, None
        if not self._stateful and terms.policy.merge and available_threads() == 1:
            gather = Gather(terms.policy.max_rows)
        policies = Policies(
            self._queue,
            self._placement,
            terms.layout,
            terms.pace,
            terms.door and terms.door.admission.expectation,
            terms.hold,
            gather,
            self._overlap,
        )
        idempotent = terms.idempotent
        finisher = Finisher(self._queue, self._answers, self.statistics, idempotent=idempotent)
        return Dispatcher(
            policies,
            instances,
            self._answers,
            finisher,
            hosts=len(self.hosts),
            groups=terms.groups,
        )

    def _is_iterative(self) -> bool:
        """Whether each request is a sequence of its own, run until its model ends it."""
        return bool(self.config.get("sequence_batching", {}).get("iterative_sequence", False))

    def _takes_many(self, instances: Sequence[Runner]) -> bool:
        """Whether a model that answers any number of times is to get its requests in batches."""
        return (
            "dynamic_batching" in self.config
            and all(host.by_request for host in self.hosts)
            and all(each.model is None or by_request(each.model) for each in instances)
        )

    # ---- requests
    @property
    def plain(self) -> bool:
        """Whether requests may go the express way."""
        terms = self._terms
        special = self._door or self._caches or terms.layout or terms.in_order
        return not (special or self._stateful or self.decoupled) and not any(
            rule.reshape for rule in self.signature.outputs.values()
        )

    def express(
        self,
        express: Express,
        raw: Buffer,
        reply: Reply,
        target: object,
        deadline: float | None,
        ident: str,
    ) -> Ticket:
        """As `submit`, of one that differs from an earlier one in its bytes and id only."""
        if self._draining or self._given_up:
            self._require_open(express.request)
        now_ns = time.monotonic_ns()
        standing = express.standing
        item = Pending(
            express.request_of(ident) if ident else express.request,
            reply,
            {} if standing is None else standing.arrays,
            express.rows,
            express.lane,
            self._default_level,
            now_ns,
            now_ns / _NS,
            deadline or 0.0,
            self,
            express=express,
            raw=raw if standing is None else None,
            target=target,
            deadline=deadline or 0.0,
        )
        try:
            self._queue.push(item)
        except TuiliError as error:
            return self._refuse(item, error)
        self._dispatcher.wake()
        return item

    def _require_open(self, request: InferRequest) -> None:
        if self._draining and (self._closed or not is_part(request)):
            raise Unavailable(
                f"'{self.signature.model}' version {self.version} is not at ready state"
            )
        if self._given_up and self.broken:
            raise Unavailable(f"{prefix(request)}'{self.signature.model}' is {self._broken}")

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """Check and queue a request; raises what it is refused for."""
        self._require_open(request)
        item = self._checked(request, reply)
        if self._own_ids is not None:
            item.sequence, item.starts = next(self._own_ids), True
        if self._terms.layout is not None and not isinstance(item.lane, Alone):
            item.lane = self._terms.layout.lane(item.arrays)
        if not self._caches or request.uncached:
            return self._enqueue(item)
        self._answers.from_cache(item, self._enqueue_or_fail)
        return item

    def _checked(self, request: InferRequest, reply: Reply) -> Pending:
        checked = self.signature.check(request)
        now_ns = time.monotonic_ns()
        return Pending(
            request,
            reply,
            checked.arrays,
            checked.rows,
            checked.lane,
            self._default_level,
            now_ns,
            now_ns / _NS,
            request.deadline or 0.0,
            self,
        )

    async def rehearse(
        self, request: InferRequest, runners: Sequence[Runner] | None = None
    ) -> None:
        """Run a request on every instance, before there are any others; raises what fails.

        `runners` are instances that are still to come, by default those there are.
        """
        if self._stateful:
            raise Unsupported(f"'{self.signature.model}' answers sequences, not single requests")
        item = self._checked(request, unheard)
        await self._dispatcher.rehearse(item, runners, many=self.decoupled)

    def _enqueue(self, item: Pending) -> Ticket:
        request = item.request
        timeout_s = 0.0
        if request.deadline:
            item.deadline = request.deadline
        if request.parameters:
            timeout_s = self._apply_parameters(item, request.parameters)
        try:
            if self._door is not None:
                self._admit(self._door, item)
            if not self._stateful:
                self._enter_order(item)
            self._queue.push(item, timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, its place is given back
            return self._refuse(item, of_tree(error, "a request could not be queued"))
        self._dispatcher.wake()
        if request.call is not None:
            request.call.enter(item)
        return item

    def _enter_order(self, item: Pending) -> None:
        """Let answers leave in order; one to a model's call would wait for what waits for it."""
        if self._order is not None and item.request.call is None:
            self._order.enter(item)

    def _enqueue_or_fail(self, item: Pending) -> None:
        """As `_enqueue`, for when nobody waits above: an answer was looked for in the cache."""
        if item.reply is None:
            return
        try:
            self._enqueue(item)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            reply, item.reply = item.reply, None
            hand_over(reply, of_tree(error, "a request could not be queued"))

    def _admit(self, door: Door, item: Pending) -> None:
        """Let a request in, and see to it that its end is told."""
        parameters = item.request.parameters or {}
        origin = item.request.origin
        client = parameters.get(CLIENT) or (origin and origin.header(CLIENT_HEADER))
        item.client = str(client or (origin and origin.address()) or "")
        ahead = self._queue.ahead(item.level) + self._dispatcher.under_way
        door.admission.admit(item.client, ahead, item.deadline, item.arrived)
        item.admitted = True
        reply = item.own_reply = item.reply
        assert reply is not None

        def ended(answer: InferResponse | TuiliError) -> None:
            door.admission.ended(item.client)
            reply(answer)

        item.reply = ended

    def _refuse(self, item: Pending, error: TuiliError) -> Ticket:
        """Answer in a lesser way if there is one, else raise what the request is refused for."""
        if self._order is not None:
            self._order.leave(item)
        request, reply, door = item.request, item.reply, self._door
        if door is not None:
            if item.admitted:
                door.admission.ended(item.client)
                item.admitted, item.reply = False, item.own_reply
            elif isinstance(error, Overloaded) and reply is not None:
                if door.degrade_cached and self._answers.from_old(item):
                    return item
                instead = door.lesser(request, reply)
                if instead is not None:
                    item.reply = None
                    self.statistics.degraded += 1
                    return instead
        self.statistics.record_failure("REJECTED", 0)
        if isinstance(error, Overloaded):
            raise Overloaded(prefix(request) + str(error), error.retry_after_s) from None
        raise error

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As `submit`, for a model that answers any number of times."""
        item = self.submit(request, lambda answer: reply(answer, True))
        if not isinstance(item, Pending) or item.reply is None:
            return item  # It was answered in a lesser way.

        item.part = partial(self._part, reply)
        item.end = partial(self._end, reply)
        return item

    def _part(self, reply: StreamReply, item: Pending, answer: Answered, final: bool) -> bool:
        """One of many answers to a request; false when no more are wanted."""
        if final:
            item.end = partial(self._end, None)  # The last answer itself says so.
        return self._answers.part(item, reply, answer, final)

    def _end(self, reply: StreamReply | None, item: Pending) -> None:
        """The last of many answers was given; `reply` is to be told."""
        if self._door is not None and item.admitted:
            self._door.admission.ended(item.client)
        if reply is not None:
            reply(None, True)

    def cancel(self, item: Pending) -> None:
        """Drop a request: out of the queue if it waits, its answer ignored if it runs."""
        was_answered, item.reply = item.reply is None, None
        is_kept_back = self._order is not None and self._order.leave(item)
        if was_answered and not is_kept_back:
            return
        if self._door is not None and item.admitted:
            self._door.admission.ended(item.client)
        if was_answered:
            return
        if self._queue.remove(item):
            # What it waited for may be others' now.
            self._dispatcher.wake()
        else:
            self._dispatcher.cancelled(item)
        self.statistics.record_failure("CANCELED", time.monotonic_ns() - item.arrived_ns)
        self._dispatcher.idle.settle()

    def withdraw(self, item: Pending) -> None:
        """Tell the model that it may end a request early."""
        item.withdrawn = True
        self._dispatcher.cancelled(item)

    def keeps(self, sequence: int | str) -> bool:
        """Whether a sequence is open here."""
        return isinstance(self._queue, SequenceQueue) and self._queue.keeps(sequence)

    def forsake(self, sequence: int | str, why: str = "") -> None:
        """A sequence is another version's; with `why`, what waits in it is not answered."""
        if isinstance(self._queue, SequenceQueue):
            self._queue.forsake(sequence, why)
            self._dispatcher.wake()

    def open_sequences(self) -> int:
        """How many sequences may go on here."""
        return self._queue.open_sequences() if isinstance(self._queue, SequenceQueue) else 0

    @property
    def sequence_idle_s(self) -> float:
        """How long a sequence may be idle; 0 for a model without."""
        return 0.0 if self._terms.sequences is None else self._terms.sequences.idle_s

    def needs(self) -> list[Need]:
        """What must happen before its instances run what waits."""
        return self._dispatcher.needs()

    def pending(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def held_bytes(self) -> int:
        """Memory in this process that its runs keep, beside its files."""
        models = {id(each.model): each.model for each in self._dispatcher.instances}
        return sum(int(getattr(model, "held_bytes", 0)) for model in models.values())

    def _apply_parameters(self, item: Pending, parameters: Parameters) -> float:
        """Set the priority level; returns the request's own timeout in seconds."""
        priority = parameters.get("priority", 0)
        item.level = self._terms.policy.level_of(int(priority))
        if self._stateful:
            item.sequence = _sequence_id(parameters.get("sequence_id", 0))
            item.starts = bool(parameters.get("sequence_start", False))
            item.ends = bool(parameters.get("sequence_end", False))
        timeout_s = int(parameters.get("timeout", 0)) / 1e6
        if timeout_s and self._terms.policy.end_to_end and not self._stateful:
            moment = item.arrived + timeout_s
            item.deadline = min(item.deadline, moment) if item.deadline else moment
        return timeout_s

    def _rows_worth(self, item: Pending) -> int:
        judge = self._overlap or self._placement
        return judge.rows_worth(item.elements // item.rows, self._terms.policy.max_rows)

    # ---- life
    @property
    def broken(self) -> str:
        """Why it cannot answer now, or "" if it can."""
        why = self._broken
        return why and ("" if any(each.available for each in self._dispatcher.instances) else why)

    def instances_changed(self, reason: str, *, given_up: bool) -> None:
        """Instances went or came back; while they are `given_up`, nobody waits for them."""
        self._broken, self._given_up = reason, given_up
        self._dispatcher.instances_changed()
        if given_up and not any(each.available for each in self._dispatcher.instances):
            for item in self._queue.drain():
                self._answers.fail(item, Unavailable(prefix(item.request) + reason), "BACKEND")
        self._dispatcher.flush()

    def grow(self, instances: Sequence[Runner], host: Host | None) -> None:
        """One more instance is there."""
        if host is not None:
            self.hosts.append(host)
        self._dispatcher.add(instances, hosts=host is not None)
        self._set_expected_instances()

    def shrink(self, instances: Sequence[Runner], host: Host | None) -> bool:
        """Do without an instance; false while it runs, and it runs nothing more."""
        if not self._dispatcher.remove(instances, hosts=host is not None):
            return False
        if host is not None:
            self.hosts.remove(host)
        self._set_expected_instances()
        return True

    def keep(self) -> None:
        """An instance that was to go, and ran, stays."""
        self._dispatcher.keep()

    def _set_expected_instances(self) -> None:
        if self._door is not None:
            count = len(self.hosts) or len(self._dispatcher.instances)
            self._door.admission.expectation.instances = count

    def hold(self) -> None:
        """Stay until `release`, for the other steps of a request to a pipeline."""
        self._dispatcher.idle.hold()

    def release(self) -> None:
        """The request that held it has ended."""
        self._dispatcher.idle.release()

    def shut(self) -> None:
        """Refuse new requests, but for parts of those that are under way."""
        self._draining = True
        if isinstance(self._queue, SequenceQueue):
            self._queue.close(f"version {self.version} of the model was unloaded or reloaded")
        else:
            self._queue.hurry()
        self._dispatcher.wake()

    async def drain(self, timeout_s: float | None = None) -> bool:
        """As `shut`, and wait for those here; false when time ran out first."""
        self.shut()
        if self._terms.shared is not None:
            await self._terms.shared.cache.settle()
        return await self._dispatcher.idle.wait(timeout_s)

    async def close(self) -> None:
        """Fail what still waits, and release the instances once the running batches end."""
        self._draining = self._closed = True
        await self.before_close()
        for item in self._queue.drain():
            self._answers.fail(item, Unavailable("the model was unloaded"), "REJECTED")
        self._dispatcher.stop()
        await self.drain()
        self._dispatcher.leave(self._dispatcher.instances)
        await asyncio.gather(
            *(asyncio.to_thread(each.close) for each in self._dispatcher.instances)
        )


async def _nothing() -> None:
    """Nobody looks after the servable."""


def _sequence_id(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidArgument(f"sequence_id must be a number or text, got {value!r}")
    return value

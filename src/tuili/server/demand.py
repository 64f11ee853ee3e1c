"""Demand: a model is loaded when a request asks for it, and goes when others need its memory.

Theory of operation
- A request for a model that is not live waits for its load, then goes the usual way. All requests
  that come meanwhile wait for the same load.
- From arrival to answer a request pins its model and the parts of it; pinned models stay, and so do
  models under roll-out, and stateful ones until their sequences are idle. An ensemble goes before
  the first of its parts does.
- Room is made before a load, by what the model needed last time or else by the size of its files,
  and again after it, by what it really takes. A model that alone is above the budget is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tuili.errors import TuiliError, Unavailable
from tuili.server.execution.pending import Reply, StreamReply, Ticket
from tuili.server.footprints import Footprints
from tuili.server.protocol.messages import Calling, InferRequest, InferResponse
from tuili.server.repository.layout import find_model
from tuili.server.scheduling.deadlock import Need
from tuili.server.scheduling.loads import LoadOf
from tuili.server.scheduling.residency import Resident, fits, victims

if TYPE_CHECKING:
    from tuili.server.dataplane import DataPlane

Answer = TypeVar("Answer")
_log = logging.getLogger("tuili.server")

# How long a request waits until models in use let others have their memory.
_PATIENCE_S: Final = 30.0
# A model that failed to load is not tried again for every request.
_TRY_AGAIN_S: Final = 5.0
_IDLE_US: Final = 1_000_000  # of a sequence, where the configuration names no time


class Demand:
    """Loads the models of one data plane as they are asked for; all on the event loop."""

    def __init__(self, dataplane: DataPlane, budget_bytes: int) -> None:
        self.loads = self.evictions = 0
        self._dataplane = dataplane
        self._repository = dataplane.repository
        self._budget = budget_bytes
        self._footprints = Footprints(dataplane.options.repository, self._repository.live)
        self._submit, self._submit_stream = dataplane.submit, dataplane.submit_stream
        self._pins: dict[str, int] = defaultdict(int)
        self._used_at: dict[str, float] = {}
        self._reserved: dict[str, int] = {}  # for loads under way
        self._leaving: dict[str, int] = {}  # what still drains
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[float, TuiliError]] = {}
        self._remote: frozenset[str] = frozenset()
        self._released = asyncio.Event()

    async def start(self) -> None:
        """Learn which models remote repositories have; nothing is loaded."""
        self._remote = frozenset(await self._dataplane.remotes.names())

    def close(self) -> None:
        """Nothing is loaded any more."""
        for task in self._loading.values():
            task.cancel()

    # ---- requests
    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """As of the data plane, once the model is live."""
        use = _Use(self, request.model)

        def answered(answer: InferResponse | TuiliError) -> None:
            use.end()
            reply(answer)

        self._when_live(use, lambda: self._submit(request, answered), answered, request.call)
        return use

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> Ticket:
        """As `submit`, for models that answer 0..n times."""
        use = _Use(self, request.model)

        def answered(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if final:
                use.end()
            reply(answer, final)

        self._when_live(
            use,
            lambda: self._submit_stream(request, answered),
            lambda error: answered(error, True),
            request.call,
        )
        return use

    def _when_live(
        self,
        use: _Use,
        start: Callable[[], Ticket],
        refuse: Callable[[TuiliError], None],
        call: Calling | None,
    ) -> None:
        if use.model in self._repository.live or not self.may_load(use.model):
            use.ticket = start()
            return

        def loaded(done: asyncio.Task[None]) -> None:
            if use.ended:
                return
            error = done.exception() if not done.cancelled() else Unavailable("shutting down")
            if error is None:
                use.ticket = start()
            else:
                refuse(error if isinstance(error, TuiliError) else Unavailable(str(error)))

        self._load(use.model).add_done_callback(loaded)
        if call is not None:
            call.enter(use)

    # ---- everything but inference
    def may_load(self, model: str) -> bool:
        """Whether there is such a model to load."""
        try:
            here = find_model(self._dataplane.options.repository, model) is not None
        except TuiliError:
            return False  # more than one, or no name at all: the data plane tells
        return here or model in self._remote

    def is_ready(self, model: str) -> bool:
        """Whether a request would be answered: it is there, and did not just fail to load."""
        return self.may_load(model) and model not in self._failed

    async def ensure(self, model: str) -> None:
        """Load a model unless it is live; raises why it cannot be."""
        if model not in self._repository.live and self.may_load(model):
            await asyncio.shield(self._load(model))

    def when_live(self, model: str, answer: Callable[[], Answer]) -> Answer | Awaitable[Answer]:
        """The answer to a question about a model, once it is live."""
        if not model or model in self._repository.live or not self.may_load(model):
            return answer()

        async def later() -> Answer:
            use = _Use(self, model)
            try:
                await self.ensure(model)
                return answer()
            finally:
                use.end()

        return later()

    # ---- pins
    def pin(self, model: str) -> None:
        """A request for this model came."""
        self._pins[model] += 1
        self._used_at[model] = time.monotonic()

    def unpin(self, model: str) -> None:
        """It was answered."""
        self._pins[model] -= 1
        if not self._pins[model]:
            del self._pins[model]
            self._released.set()
        if model in self._repository.live:
            self._used_at[model] = time.monotonic()
        else:
            self._used_at.pop(model, None)

    # ---- loading
    def needs(self, model: str) -> Sequence[Need]:
        """What must happen before a model is live."""
        return LoadOf(self._repository.loads, model).needs()

    def _load(self, model: str) -> asyncio.Task[None]:
        """The load of a model that is under way, or a new one."""
        task = self._loading.get(model)
        if task is None:
            task = self._loading[model] = asyncio.ensure_future(self._bring(model))
            task.add_done_callback(lambda done: self._loaded(model, done))
        return task

    def _loaded(self, model: str, done: asyncio.Task[None]) -> None:
        del self._loading[model]
        if not done.cancelled():
            done.exception()  # who waits is told; perhaps nobody does any more

    async def _bring(self, model: str) -> None:
        """Make room, load, and see that all of it fits."""
        until, error = self._failed.get(model, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error
        try:
            await self._dataplane.remotes.fetch(model)
            try:
                await self._room_for(model)
                await self._repository.load(model)
            finally:
                self._reserved.pop(model, None)
            self.loads += 1
            await self._fit(model)
        except _NoRoomNow:
            raise  # it may be there for the next request
        except TuiliError as failure:
            self._failed[model] = (time.monotonic() + _TRY_AGAIN_S, failure)
            raise
        self._failed.pop(model, None)

    async def _room_for(self, model: str) -> None:
        """Unload what has to go before a model is loaded, and hold its room; Unavailable."""
        needed = await asyncio.to_thread(self._footprints.estimate, model)
        if not self._budget:
            return
        if needed > self._budget:
            raise self._too_large(model, needed)
        until = time.monotonic() + _PATIENCE_S
        while not fits(there := self._residents(), self._budget, needed):
            self._released.clear()
            left = until - time.monotonic()
            if left <= 0:
                used = ", ".join(sorted(each.name for each in there if each.pinned))
                raise _NoRoomNow(
                    f"no room for model '{model}', which needs about {_mb(needed)} of the "
                    f"{_mb(self._budget)} of --memory-budget: in use are {used}"
                )
            await _within(self._released.wait(), left)
        self._reserved[model] = needed
        await self._evict(victims(there, self._budget, needed))

    async def _fit(self, model: str) -> None:
        """Go by what the model really takes, now that it is loaded."""
        needed = await asyncio.to_thread(self._footprints.measure, model)
        self._used_at.setdefault(model, time.monotonic())
        if not self._budget:
            return
        if needed > self._budget:
            await self._repository.unload(model)
            raise self._too_large(model, needed)
        await self._evict(victims(self._residents(but=model), self._budget, needed))

    async def _evict(self, models: list[str]) -> None:
        self._leaving |= {model: self._footprints.of(model) for model in models}
        for model in models:
            _log.info("model %s makes room: it was used least recently", model)
            self.evictions += 1
            await self._unload(model)
            self._leaving.pop(model, None)

    async def _unload(self, model: str) -> None:
        for whole in self._made_of(model):
            await self._unload(whole)
        await self._repository.unload(model)

    def _too_large(self, model: str, needed: int) -> Unavailable:
        return Unavailable(
            f"model '{model}' needs {_mb(needed)}, which is above the {_mb(self._budget)} of "
            "--memory-budget"
        )

    # ---- what there is
    def _residents(self, but: str = "") -> list[Resident]:
        """The live models, those to come and those that still go, with what each holds now."""
        found = [
            Resident(name, self._footprints.of(name), *self._use_of(name))
            for name in self._repository.live
            if name != but
        ]
        passing = {**self._leaving, **self._reserved}
        found += [
            Resident(name, size, 0.0, pinned=True)
            for name, size in passing.items()
            if name != but and name not in self._repository.live
        ]
        return found

    def _use_of(self, model: str) -> tuple[float, bool]:
        """When a model was used last, and whether it is now: by itself or in an ensemble."""
        used_at = self._used_at.get(model, 0.0)
        pinned = model in self._pins or self._in_sequence(model)
        pinned = pinned or model in self._dataplane.conductor.reconciler.splits
        for whole in self._made_of(model):
            above = self._use_of(whole)
            used_at, pinned = max(used_at, above[0]), pinned or above[1]
        return used_at, pinned

    def _made_of(self, model: str) -> list[str]:
        """The live ensembles that have this model as a part."""
        return [each for each in self._repository.live if model in self._dataplane.parts_of(each)]

    def _in_sequence(self, model: str) -> bool:
        """Whether a stateful model was used so lately that its sequences may go on."""
        front = self._repository.live[model][""]
        batching: dict[str, Any] | None = front.config.get("sequence_batching")
        if not batching:
            return False
        idle_s = int(batching.get("max_sequence_idle_microseconds") or _IDLE_US) / 1e6
        return time.monotonic() - self._used_at.get(model, 0.0) < idle_s

    def lines(self) -> list[str]:
        """The Prometheus lines."""
        used = sum(each.size_bytes for each in self._residents())
        rows = (
            ("tuili_demand_loads", "counter", "Models loaded because a request came", self.loads),
            ("tuili_demand_evictions", "counter", "Models unloaded for others", self.evictions),
            ("tuili_demand_used_bytes", "gauge", "Memory of loaded models", used),
            ("tuili_demand_budget_bytes", "gauge", "Most that it may be, 0: any", self._budget),
        )
        return [
            line
            for name, kind, text, value in rows
            for line in (f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}")
        ]


class _NoRoomNow(Unavailable):
    """Models in use leave no room."""


class _Use:
    """One request's hold on its model; also its ticket."""

    __slots__ = ("_demand", "ended", "model", "ticket")

    def __init__(self, demand: Demand, model: str) -> None:
        self._demand = demand
        self.model = model
        self.ticket: Ticket | None = None
        self.ended = False
        demand.pin(model)

    def end(self) -> None:
        """Let the model go, once."""
        if not self.ended:
            self.ended = True
            self._demand.unpin(self.model)

    @property
    def told(self) -> str:
        """What does not happen if it would wait for ever."""
        return f"model '{self.model}' is not asked"

    def needs(self) -> Sequence[Need]:
        """What must happen before the request goes on from here."""
        waits = self.ticket is None and not self.ended
        return self._demand.needs(self.model) if waits else ()

    def cancel(self) -> None:
        """The client is gone."""
        self.end()
        if self.ticket is not None:
            self.ticket.cancel()


async def _within(waiting: Awaitable[object], seconds: float) -> None:
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

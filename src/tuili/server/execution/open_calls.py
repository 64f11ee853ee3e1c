"""OpenCalls: calls of models to other models, and those that can never be answered.

A run that waits for a call keeps its process, and the resources that it claims. Where all processes
that could answer, or all that hold what one needs to answer, wait in turn for it or for others like
it, the call that closed the ring is refused, so that the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from tuili.server.execution.pending import Pending, Process
from tuili.server.scheduling.deadlock import AnyOf, Need, Stuck, deadlocked


class OpenCall:
    """One call, from its arrival to its answer."""

    def __init__(
        self, calls: OpenCalls, process: Process, run: int, refuse: Callable[[str], None]
    ) -> None:
        self._calls = calls
        self._process = process
        self._run = run
        self._is_awaited = False
        self._items: list[Pending] = []
        self.refuse = refuse

    @property
    def holder(self) -> Process | None:
        """The process that does nothing else until this is answered."""
        waits = self._is_awaited and self._run and self._run == self._process.current_run
        return self._process if waits else None

    def awaited(self) -> None:
        """The run that made it goes on with the answer only."""
        self._is_awaited = True
        self._calls.look_at(self)

    def enter(self, item: Pending) -> None:
        """A request that came of it waits for a model."""
        self._items.append(item)
        self._calls.look_at(self)

    def over(self) -> None:
        """It is answered, or nobody waits for it."""
        self._items.clear()
        self._calls.forget(self)

    def needs(self) -> Iterator[Need]:
        """What must happen before its requests are answered."""
        for item in self._items:
            if item.reply is None:
                continue
            if item.queued:
                yield from item.owner.needs()
            else:
                yield AnyOf((item.process,))

    def model(self) -> str:
        """The model that its last request waits for."""
        return self._items[-1].request.model if self._items else ""


class OpenCalls:
    """All of a server; on the event loop."""

    def __init__(self) -> None:
        self._all: set[OpenCall] = set()

    def begin(self, process: Process, run: int, refuse: Callable[[str], None]) -> OpenCall:
        """A process calls, in a run or (0) beside them; `refuse` gets why none can answer."""
        if run:
            process.calling_run = run
        call = OpenCall(self, process, run, refuse)
        self._all.add(call)
        return call

    def forget(self, call: OpenCall) -> None:
        """A call is over."""
        self._all.discard(call)

    def look_at(self, call: OpenCall) -> None:
        """Something about a call has changed: see what it means once its requests are placed."""
        asyncio.get_running_loop().call_soon(self._check, call)

    def _check(self, call: OpenCall) -> None:
        holder = call.holder
        if call not in self._all or holder is None or _vain(call, _CALLERS) is None:
            return  # the everyday case
        waiting: dict[object, list[Need]] = {}
        for each in self._all:
            if each.holder is not None:
                waiting.setdefault(each.holder, []).extend(each.needs())
        dead = deadlocked(waiting)
        vain = _vain(call, dead) if holder in dead else None
        if vain is not None:
            call.refuse(f"model '{call.model()}' is not asked: {vain.why}")


class _Callers:
    """All processes whose present runs ask other models."""

    def __contains__(self, process: object) -> bool:
        return getattr(process, "calls_others", False)


_CALLERS: Final = _Callers()


def _vain(call: OpenCall, stuck: Stuck) -> Need | None:
    return next((need for need in call.needs() if need.unmet(stuck)), None)

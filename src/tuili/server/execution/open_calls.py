"""OpenCalls: what models ask of others and loads of each other, and what can never be answered.

A run that waits for a call keeps its process, and the resources that it claims; so does a process
that calls while it loads its model, and with it the load. Where all processes and loads that could
answer, or all that hold what one needs to answer, wait in turn for it or for others like it, the
call that closed the ring is refused, so that the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, Protocol

from tuili.errors import Unavailable
from tuili.server.execution.pending import Process
from tuili.server.scheduling.deadlock import Need, Stuck, deadlocked, ring
from tuili.server.scheduling.loads import Load, Loads


class Waiting(Protocol):
    """What a call waits for."""

    @property
    def told(self) -> str:
        """What does not happen if it would wait for ever."""
        ...

    def needs(self) -> Iterable[Need]: ...


class OpenCall:
    """One call, from its arrival to its answer."""

    def __init__(
        self, calls: OpenCalls, holder: Callable[[], object], refuse: Callable[[str], None]
    ) -> None:
        """`holder` is what does nothing else, once the answer is awaited."""
        self._calls = calls
        self._holder = holder
        self._is_awaited = False
        self._items: list[Waiting] = []
        self.refuse = refuse

    @property
    def holder(self) -> object:
        """The process or load that does nothing else until this is answered, or None."""
        return self._holder() if self._is_awaited else None

    def awaited(self) -> None:
        """Who made it goes on with the answer only."""
        self._is_awaited = True
        self._calls.look_at(self)

    def enter(self, item: Waiting) -> None:
        """It waits for this."""
        self._items.append(item)
        self._calls.look_at(self)

    def over(self) -> None:
        """It is answered, or nobody waits for it."""
        self._items.clear()
        self._calls.forget(self)

    def needs(self) -> Iterator[Need]:
        """What must happen before it is answered."""
        for item in self._items:
            yield from item.needs()

    def told(self) -> str:
        """What does not happen if it is refused."""
        return self._items[-1].told if self._items else ""


class OpenCalls:
    """All of a server; on the event loop."""

    def __init__(self, loads: Loads | None = None) -> None:
        self.loads = loads or Loads()
        self._all: set[OpenCall] = set()

    def begin(self, process: Process, run: int, refuse: Callable[[str], None]) -> OpenCall:
        """A process calls, in a run or (0) beside them; `refuse` gets why none can answer."""
        if run:
            process.calling_run = run

        def holder() -> object:
            return process if run and run == process.current_run else None

        return self._opened(holder, refuse)

    async def for_load(self, load: Load, work: Callable[[OpenCall], Awaitable[None]]) -> None:
        """Do what a load waits for, as a call of its own; Unavailable when it closes a ring."""
        refused: list[str] = []

        def refuse(why: str) -> None:
            refused.append(why)
            task.cancel()

        call = self._opened(lambda: load, refuse)
        call.awaited()
        task = asyncio.ensure_future(work(call))
        try:
            await task
        except asyncio.CancelledError:
            if not refused:
                raise
            raise Unavailable(refused[0]) from None
        finally:
            call.over()

    def _opened(self, holder: Callable[[], object], refuse: Callable[[str], None]) -> OpenCall:
        call = OpenCall(self, holder, refuse)
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
        waiting: dict[object, list[Need]] = {load: load.needs() for load in self.loads}
        for each in self._all:
            if each.holder is not None:
                waiting.setdefault(each.holder, []).extend(each.needs())
        dead = deadlocked(waiting)
        vain = _vain(call, dead) if holder in dead else None
        if vain is not None:
            names = [getattr(each, "name", "") for each in ring(holder, waiting, dead)]
            call.refuse(f"{call.told()}: {vain.why} ({' -> '.join(names)})")


class _Callers:
    """All processes whose present runs ask other models, and all loads."""

    def __contains__(self, process: object) -> bool:
        return getattr(process, "calls_others", False)


_CALLERS: Final = _Callers()


def _vain(call: OpenCall, stuck: Stuck) -> Need | None:
    return next((need for need in call.needs() if need.unmet(stuck)), None)

"""A front end over a fake data plane on a loop of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from tests.server.fake_dataplane import FakeDataPlane, FakeTicket

_TIMEOUT_S = 10


class Running:
    """A started front end, and the ways to its loop."""

    def __init__(self, dataplane: FakeDataPlane, front_end: Any) -> None:
        self.dataplane = dataplane
        self.front_end = front_end
        self.port: int = front_end.port
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()

    def on_loop(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the server's loop and wait for its result."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(_TIMEOUT_S)

    def held(self) -> FakeTicket:
        """The ticket of a request to the model `held`, once it is there."""
        waiting = asyncio.run_coroutine_threadsafe(self.dataplane.holding.wait(), self.loop)
        waiting.result(_TIMEOUT_S)
        return self.on_loop(lambda: self.dataplane.held[-1][0])

    def until(self, condition: Callable[[], bool]) -> bool:
        """Whether `condition` comes true on the loop, looked at after each of its turns."""

        async def watch() -> bool:
            async with asyncio.timeout(_TIMEOUT_S):
                while not condition():  # noqa: ASYNC110 - conditions are no events
                    await asyncio.sleep(0)
            return True

        return asyncio.run_coroutine_threadsafe(watch(), self.loop).result(_TIMEOUT_S + 1)


@contextmanager
def running(start: Callable[[FakeDataPlane], Awaitable[Any]]) -> Iterator[Running]:
    """The front end that `start` starts, stopped at the end."""
    started: list[Running] = []
    ready = threading.Event()

    async def serve() -> None:
        dataplane = FakeDataPlane()
        server = Running(dataplane, await start(dataplane))
        started.append(server)
        ready.set()
        await server.stop.wait()
        server.front_end.close()
        await server.front_end.wait_closed(1.0)

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    assert ready.wait(_TIMEOUT_S)
    try:
        yield started[0]
    finally:
        started[0].loop.call_soon_threadsafe(started[0].stop.set)
        thread.join(_TIMEOUT_S)
        assert not thread.is_alive()

"""Elastic: adds instances to a model while its load, now or expected, asks for them; removes them.

What it does is decided by a `Scaler`; this is the shell that loads and closes, and keeps what the
forecast has learnt in a file, so that the second day of a server is not like its first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tuili.errors import TuiliError
from tuili.server.execution.hosts import Host
from tuili.server.execution.running import Runner
from tuili.server.loading.off_loop import off_loop
from tuili.server.scheduling.forecast import Forecast
from tuili.server.scheduling.scaling import Scaler
from tuili.server.serving.servable import Servable

_log = logging.getLogger("tuili.server")

_TICK_S: Final = 1.0
_SAVE_EVERY: Final = 300

# An instance as it runs, and the process that it lives in, if it has one.
Added = tuple[list[Runner], Host | None]


class Elastic:
    """The number of instances of one servable."""

    def __init__(
        self,
        servable: Servable,
        scaler: Scaler,
        another: Callable[[int], Added],
        memory: Path | None = None,
        rehearse: Callable[[Sequence[Runner]], Awaitable[None]] | None = None,
    ) -> None:
        """`another` loads the instance of a number; `rehearse` lets it run before others use it."""
        self._servable = servable
        self._scaler = scaler
        self._another = another
        self._memory = memory
        self._rehearse = rehearse
        self._added: list[Added] = []
        self._seen = (0, 0, 0)
        self._ticks = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def instances(self) -> int:
        """How many instances there are."""
        return self._scaler.elasticity.least + len(self._added)

    def start(self) -> None:
        """Look after the servable from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Leave the servable as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._save)

    async def tick(self, now: float, calendar: float) -> None:
        """Compare what there is with what there should be, and go there: at most to twice as many.

        Those that start do so at once, since the load is there; those that go, one by one.
        """
        waiting = self._servable.pending()
        self._observe(waiting, now, calendar)
        wanted = self._scaler.wanted(waiting, now, calendar)
        there = self.instances
        if wanted >= there:
            self._servable.keep()
        if wanted > there:
            await asyncio.gather(*(self._grow(at) for at in range(there, min(wanted, 2 * there))))
        elif wanted < self.instances and self._added:
            await self._shrink()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self.tick(time.monotonic(), time.time())
            self._ticks += 1
            if self._ticks % _SAVE_EVERY == 0:
                await asyncio.to_thread(self._save)

    def _observe(self, waiting: int, now: float, calendar: float) -> None:
        statistics = self._servable.statistics
        statistics.settle()
        answered = statistics.success.count
        ended = answered + statistics.fail.count + waiting
        run_ns = statistics.infer_ns.sum_ns
        was_ended, was_answered, was_run_ns = self._seen
        self._seen = (ended, answered, run_ns)
        self._scaler.tick(
            max(ended - was_ended, 0),
            (run_ns - was_run_ns) / 1e9,
            answered - was_answered,
            now,
            calendar,
            instances=self.instances,
        )

    async def _grow(self, number: int) -> None:
        began = time.monotonic()
        loading = asyncio.ensure_future(off_loop(self._another, number))
        try:
            added = await asyncio.shield(loading)
            if self._rehearse is not None:
                await self._rehearse(added[0])
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this instance only
            loading.add_done_callback(_discard)
            bug = None if isinstance(error, TuiliError) else error
            name = self._servable.signature.model
            _log.error("%s: no instance %d: %s", name, number + 1, error, exc_info=bug)
            return
        except asyncio.CancelledError:
            # The servable ends, and what is on its way has nowhere to go.
            loading.add_done_callback(_discard)
            raise
        self._scaler.started(time.monotonic() - began)
        self._added.append(added)
        self._servable.grow(*added)
        _log.info("%s: %d instances", self._servable.signature.model, self.instances)

    async def _shrink(self) -> None:
        runners, host = self._added[-1]
        if not self._servable.shrink(runners, host):
            return  # It runs: when it has ended.
        self._added.pop()
        for runner in runners:
            await asyncio.to_thread(runner.close)
        _log.info("%s: %d instances", self._servable.signature.model, self.instances)

    def _save(self) -> None:
        forecast = self._scaler.forecast
        if self._memory is None or forecast is None:
            return
        try:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            partial = self._memory.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(forecast.dump()), encoding="utf-8")
            partial.replace(self._memory)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._memory, error)


def _discard(loading: asyncio.Future[Added]) -> None:
    """End an instance that nobody will use; its process may take a while."""
    if loading.cancelled() or loading.exception() is not None:
        return
    for runner in loading.result()[0]:
        asyncio.get_running_loop().run_in_executor(None, runner.close)


def remembered(memory: Path) -> Forecast:
    """The forecast of a file, or one that knows nothing."""
    try:
        return Forecast.load(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return Forecast()

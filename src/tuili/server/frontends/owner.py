"""FrontEnds: the owner's side: starts front ends, keeps them in step, counts what they count."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tuili.errors import InvalidArgument, Unavailable
from tuili.server.frontends.lane import offer_of
from tuili.server.frontends.messages import (
    Begin,
    Count,
    LogSettings,
    Offer,
    Retract,
    Stop,
    options_text,
)
from tuili.server.frontends.process import FrontEndProcess
from tuili.server.listening import Address
from tuili.server.loading.launching import Launcher
from tuili.server.options import ServerOptions
from tuili.server.repository.lifecycle import Repository
from tuili.server.scheduling.restarts import RestartPolicy
from tuili.server.telemetry.transfer import Counts, add

_log = logging.getLogger("tuili.server")

_START_S: Final = 60.0
# A front end that does not answer for so long is ended: nobody knows what it would say to clients.
_ANSWER_S: Final = 10.0


class FrontEnds:
    """The front ends beside the process that owns the models."""

    def __init__(
        self,
        options: ServerOptions,
        launcher: Launcher,
        repository: Repository[Any],
        traced: Callable[[str], bool],
    ) -> None:
        """`traced` says whether requests to a model may be traced, which is done by the owner."""
        self._options = options
        self._launcher = launcher
        self._repository = repository
        self._traced = traced
        self._folder = Path(tempfile.mkdtemp(prefix="tuili-"))
        self._processes: list[FrontEndProcess] = []
        self._policies = [RestartPolicy() for _ in range(options.frontends - 1)]
        self._offers: dict[str, Offer] = {}
        self._number = 0
        self._answered = [0] * (options.frontends - 1)
        self._pending: dict[tuple[str, str], list[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._begin = Begin("", "", "")
        self._stopping = False
        repository.on_change = self.changed

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Where the owner listens to its front ends: HTTP, gRPC."""
        return (
            Address("", 0, path=str(self._folder / "http")),
            Address("", 0, path=str(self._folder / "grpc")),
        )

    # ---- life
    async def start(self, ports: dict[str, int]) -> None:
        """Start all front ends on these ports, and wait until they listen."""
        http, grpc = self.addresses
        options = replace(
            self._options,
            http_port=ports.get("http", -1),
            grpc_port=ports.get("grpc", -1),
            repository=tuple(self._options.repository),
            model_control_mode="none",
            trace_config=(),
            consume=(),
            jobs_dir=None,  # jobs are the owner's
        )
        self._begin = Begin(options_text(options), http.path, grpc.path)
        self._processes = [
            FrontEndProcess(at, self._counted, self._gone) for at in range(len(self._policies))
        ]
        await asyncio.gather(*(self._launch(at) for at in range(len(self._processes))))
        for at, process in enumerate(self._processes):
            if not process.up:
                raise Unavailable(f"front end {at + 1} did not start: {process.trouble}")

    async def _launch(self, at: int) -> None:
        process = self._processes[at]
        await process.start(self._begin, _START_S)
        if process.up:
            self._policies[at].started(time.monotonic())
            for offer in self._offers.values():
                process.send(offer)

    async def stop(self, timeout_s: float) -> bool:
        """Have all front ends end; false when one had requests left and no time."""
        self._stopping = True
        results = await asyncio.gather(
            *(process.stop(Stop(timeout_s), timeout_s) for process in self._processes)
        )
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        return all(results)

    def _gone(self, at: int) -> None:
        """A front end died: its connections are lost, all others go on."""
        if self._stopping:
            return
        for each in self._pending.values():
            each[at] = 0
        self._later(self._again(at))

    async def _again(self, at: int) -> None:
        """Start it until it is up: it may die of what it died of before, or as it starts."""
        process = self._processes[at]
        while not process.up and not self._stopping:
            delay_s = self._policies[at].died(time.monotonic())
            _log.error(
                "front end %d died (%s); it restarts in %g s", at + 1, process.trouble, delay_s
            )
            await asyncio.sleep(delay_s)
            await self._launch(at)
        if process.up:
            _log.info("front end %d is up again", at + 1)

    # ---- what front ends may answer
    def changed(self, model: str) -> None:
        """Other versions of a model answer than before, or in another way."""
        offer = self._offer(model)
        before = self._offers.get(model)
        if before is not None:
            if before == offer:
                return
            del self._offers[model]
            self._number += 1
            self._tell(Retract(self._number, model))
        if offer.places:
            self._offers[model] = offer
            self._tell(offer)

    def _offer(self, model: str) -> Offer:
        options = self._options
        # Where every use of a model is noted, or waits for its turn, one process has to see all.
        alone = options.model_control_mode == "demand" or options.rate_limit != "off"
        if alone or self._traced(model):
            return Offer(model, {})
        return offer_of(model, self._repository.live.get(model, {}), self._launcher)

    def traces_changed(self) -> None:
        """Other requests are traced than before."""
        for model in list(self._repository.live):
            self.changed(model)

    def log_settings_changed(self, settings: dict[str, Any]) -> None:
        """Front ends log what the owner logs."""
        self._tell(LogSettings(settings))

    async def in_step(self) -> None:
        """Return once every front end knows of all changes."""
        number = self._number
        await asyncio.gather(*(each.reached(number, _ANSWER_S) for each in self._processes))

    # ---- what they counted
    async def count(self) -> None:
        """Return once everything that they counted is in the owner's statistics."""
        self._number += 1
        self._tell(Count(self._number))
        await self.in_step()

    def pending(self, model: str, version: str) -> int:
        """How many requests to a version wait in front ends."""
        return sum(self._pending.get((model, version), ()))

    def _counted(self, at: int, counts: list[Counts]) -> None:
        if counts:
            self._policies[at].served()
        for each in counts:
            add(self._launcher.statistics(each.model, each.version), each)
            self._answered[at] += each.durations.get("success", (0, 0))[0]
            waiting = self._pending.setdefault(
                (each.model, each.version), [0] * len(self._answered)
            )
            waiting[at] = each.pending

    def lines(self) -> list[str]:
        """Their lines in the Prometheus text."""
        lines: list[str] = []
        ups = [int(process.up) for process in self._processes]
        for name, kind, text, values in (
            ("tuili_front_end_up", "gauge", "Whether the front end runs", ups),
            ("tuili_front_end_deaths", "counter", "Deaths of the front end",
             [policy.deaths for policy in self._policies]),
            ("tuili_front_end_inferences", "counter",
             "Requests that the front end answered without the owner", self._answered),
        ):  # fmt: skip
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f'{name}{{front_end="{at + 1}"}} {each}' for at, each in enumerate(values)]
        return lines

    # ---- steps
    def _tell(self, message: Offer | Retract | Count | LogSettings) -> None:
        for process in self._processes:
            process.send(message)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def refuse(options: ServerOptions) -> None:
    """InvalidArgument for options that do not go together with several front ends."""
    if options.frontends > 1 and options.grpc_impl == "grpcio" and options.grpc_port >= 0:
        raise InvalidArgument(
            "--frontends above 1 needs --grpc-impl native: grpcio does not tell of its sockets"
        )

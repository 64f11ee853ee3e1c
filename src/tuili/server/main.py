"""Starts and stops the server: the order of everything, as two readable lists."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from tuili.backends.kept_memory import keep_memory
from tuili.errors import InvalidArgument, InvalidModel
from tuili.server.dataplane import DataPlane
from tuili.server.descriptors import allow_many_connections
from tuili.server.following import follow
from tuili.server.frontends.owner import FrontEnds, refuse
from tuili.server.listening import Countdown
from tuili.server.naming import dataplane_of
from tuili.server.options import ServerOptions
from tuili.server.polling import BusyPoll
from tuili.server.queues.consumer import Consumer
from tuili.server.queues.sources import source_of
from tuili.server.repository.states import State
from tuili.server.startup import KEPT_BYTES, configure_logging, loop_factory
from tuili.server.surplus import Surplus
from tuili.server.transports import (
    FrontEnd,
    http_application,
    start_grpc,
    start_http,
    start_metrics,
)

if TYPE_CHECKING:
    from tuili.server.http import Application

_log = logging.getLogger("tuili.server")


@dataclass(frozen=True, slots=True)
class Running:
    """A started server: its data plane and its front ends by name."""

    dataplane: DataPlane
    front_ends: dict[str, FrontEnd]
    # What answers HTTP, at all its doors; put there as the server begins.
    applications: list[Application] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list[Consumer])
    # The other processes that take connections, and where their requests come in.
    others: FrontEnds | None = None
    back_doors: list[FrontEnd] = field(default_factory=list[FrontEnd])

    def ports(self) -> dict[str, int]:
        """The port of each front end, as bound."""
        return {name: front_end.port for name, front_end in self.front_ends.items()}


def serve(options: ServerOptions, announce: Callable[[Running], None] | None = None) -> bool:
    """Serve until told to stop; true when everything in flight was answered before the end."""
    configure_logging(options.log_level)
    keep_memory(KEPT_BYTES)
    allow_many_connections()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(options, announce))


async def _serve(options: ServerOptions, announce: Callable[[Running], None] | None) -> bool:
    stop = _stop_on_signals()
    running = await _start_unless_stopped(options, stop)
    if options.exit_on_error and (failures := running.dataplane.repository.failures()):
        await shut_down(running, 0.0)
        raise InvalidModel(explain(failures))
    for name, port in running.ports().items():
        _log.info("%s listens on %s:%d", name, options.host, port)
    if announce is not None:
        announce(running)
    following = asyncio.create_task(follow(running.dataplane, options))
    surplus = asyncio.create_task(Surplus(KEPT_BYTES).watch())
    try:
        await stop.wait()
        _log.info("shutting down: readiness is false, requests in flight are finished")
        # Balancers that ask for readiness now and then still send requests for a while.
        running.dataplane.begin_drain()
        await asyncio.sleep(options.drain_delay_s)
    finally:
        following.cancel()
        surplus.cancel()
    return await shut_down(running, options.exit_timeout_s)


async def _start_unless_stopped(options: ServerOptions, stop: asyncio.Event) -> Running:
    """Start; a signal meanwhile ends the process, but no request that is in flight."""
    running = prepare(options)
    starting = asyncio.create_task(_begin(running))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        await _leave_loading(running, options.exit_timeout_s)
    stopping.cancel()
    await starting
    return running


async def _leave_loading(running: Running, timeout_s: float) -> NoReturn:
    """End the process while models load; others have answered since they were ready."""
    index = running.dataplane.repository.index()
    loading = [entry["name"] for entry in index if entry.get("state") == State.LOADING.value]
    _log.warning("stopped while models were loading: %s", ", ".join(loading) or "none had begun")
    running.dataplane.begin_drain()
    for application in running.applications:
        application.jobs.stop()
    finished = await _close_doors(running, Countdown(timeout_s))
    for application in running.applications:
        await application.jobs.close()
    if running.dataplane.access_log is not None:
        running.dataplane.access_log.close()
    # Threads that load cannot be cancelled, and waiting for a compiler helps nobody.
    running.dataplane.repository.abandon("")
    os._exit(0 if finished else 1)


async def start(options: ServerOptions) -> Running:
    """Prepare and begin."""
    running = prepare(options)
    await _begin(running)
    return running


def prepare(options: ServerOptions) -> Running:
    """A server that has not begun."""
    refuse(options)
    if options.jobs_dir is not None and options.http_port < 0:
        raise InvalidArgument("--jobs-dir needs HTTP, which is off: jobs are submitted there")
    dataplane = dataplane_of(options)
    others: FrontEnds | None = None
    if options.frontends > 1:
        others = FrontEnds(options, dataplane.launcher, dataplane.repository, dataplane.traces)
        dataplane.front_ends = others
    return Running(dataplane, {}, others=others)


async def _begin(running: Running) -> None:
    """Listen first, so that liveness and readiness can be asked while models load."""
    dataplane, front_ends, others = running.dataplane, running.front_ends, running.others
    options = dataplane.options
    if options.busy_poll_us:
        BusyPoll(options.busy_poll_us * 1e-6).watch(dataplane)
    try:
        if options.http_port >= 0:
            application = await http_application(dataplane, options)
            running.applications.append(application)
            front_ends["http"] = await start_http(application, dataplane, options)
        if options.grpc_port >= 0:
            front_ends["grpc"] = await start_grpc(dataplane, options)
        if options.metrics_port >= 0:
            front_ends["metrics"] = await start_metrics(dataplane, options)
        await dataplane.start()
        for application in running.applications:
            application.jobs.resume()
        if others is not None:
            await _start_others(running, others)
        for url in options.consume:
            consumer = Consumer(dataplane, source_of(url))
            running.consumers.append(consumer)
            dataplane.queues.append(consumer.counts)
            consumer.start()
    except BaseException:
        await shut_down(running, 0.0)
        raise
    # What is alive now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()


async def _start_others(running: Running, others: FrontEnds) -> None:
    """The other front ends, once there is something to pass requests on to."""
    dataplane, options = running.dataplane, running.dataplane.options
    http, grpc = others.addresses
    for application in running.applications:
        running.back_doors.append(await start_http(application, dataplane, options, http))
    if options.grpc_port >= 0:
        running.back_doors.append(await start_grpc(dataplane, options, grpc))
    await others.start(running.ports())


async def shut_down(running: Running, timeout_s: float) -> bool:
    """Readiness first, then the doors, then the requests in flight, then the models.

    All of it shares the time; whoever is not answered by then is told so.
    """
    end = Countdown(timeout_s)
    running.dataplane.begin_drain()
    for application in running.applications:
        application.jobs.stop()
    await asyncio.gather(*(consumer.stop(timeout_s) for consumer in running.consumers))
    finished = await _close_doors(running, end)
    finished = await running.dataplane.close(end.left()) and finished
    for application in running.applications:
        await application.jobs.close()
    if not finished:
        _log.warning("exit timeout expired after %g s with requests in flight", timeout_s)
    return finished


async def _close_doors(running: Running, end: Countdown) -> bool:
    """Take no more requests; whether those in flight were answered in time."""
    for front_end in running.front_ends.values():
        front_end.close()
    others = _ended if running.others is None else running.others.stop
    results = await asyncio.gather(
        others(end.left()),
        *(each.wait_closed(end.left()) for each in running.front_ends.values()),
    )
    for door in running.back_doors:
        door.close()
    results += await asyncio.gather(*(door.wait_closed(end.left()) for door in running.back_doors))
    return all(results)


async def _ended(_: float) -> bool:
    """There are no other front ends."""
    return True


def explain(failures: dict[str, str]) -> str:
    """The causes of all models that failed to load, one line each."""
    causes = "".join(f"\n  {name}: {reason}" for name, reason in sorted(failures.items()))
    return (
        f"{len(failures)} model(s) failed to load (--no-exit-on-error serves the others):{causes}"
    )


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once.

    So does a terminal that is gone (SIGHUP), unless somebody such as nohup has us ignore that.
    """
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop

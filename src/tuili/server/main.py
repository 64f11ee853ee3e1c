"""Starts and stops the server: the order of everything, as two readable lists."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from tuili.errors import InvalidArgument, InvalidModel, Unavailable, Unsupported
from tuili.server.dataplane import DataPlane
from tuili.server.following import follow
from tuili.server.naming import dataplane_of
from tuili.server.options import ServerOptions
from tuili.server.polling import BusyPoll
from tuili.server.protocol.restrictions import Restrictions, read_keys
from tuili.server.queues.consumer import Consumer
from tuili.server.queues.sources import source_of
from tuili.server.tls import server_context
from tuili.server.webhooks import Webhooks

_log = logging.getLogger("tuili.server")

# glibc's mallopt parameters; see `keep_memory_warm`.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_WARM_BYTES: Final = 1 << 30
_DESCRIPTORS: Final = 65_536


class FrontEnd(Protocol):
    """A listening transport."""

    @property
    def port(self) -> int: ...
    def close(self) -> None: ...
    async def wait_closed(self, timeout_s: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Running:
    """A started server: its data plane and its front ends by name."""

    dataplane: DataPlane
    front_ends: dict[str, FrontEnd]
    consumers: list[Consumer] = field(default_factory=list[Consumer])

    def ports(self) -> dict[str, int]:
        """The port of each front end, as bound."""
        return {name: front_end.port for name, front_end in self.front_ends.items()}


def serve(options: ServerOptions, announce: Callable[[Running], None] | None = None) -> bool:
    """Serve until SIGTERM or SIGINT; true when everything in flight was answered before the end."""
    configure_logging(options.log_level)
    keep_memory_warm()
    allow_many_connections()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
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
    try:
        await stop.wait()
        _log.info("shutting down: readiness is false, requests in flight are finished")
        # Balancers that ask for readiness now and then still send requests for a while.
        running.dataplane.begin_drain()
        await asyncio.sleep(options.drain_delay_s)
    finally:
        following.cancel()
    return await shut_down(running, options.exit_timeout_s)


async def _start_unless_stopped(options: ServerOptions, stop: asyncio.Event) -> Running:
    """Start; a signal meanwhile ends the process, as no request can be in flight."""
    starting = asyncio.create_task(start(options))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        _log.info("stopped while models were loading")
        # Loading threads cannot be cancelled, and waiting for a compiler helps nobody.
        os._exit(0)
    stopping.cancel()
    return starting.result()


async def start(options: ServerOptions) -> Running:
    """Listen first, so that liveness and readiness can be asked while models load."""
    dataplane = dataplane_of(options)
    front_ends: dict[str, FrontEnd] = {}
    running = Running(dataplane, front_ends)
    if options.busy_poll_us:
        BusyPoll(options.busy_poll_us * 1e-6).watch(dataplane)
    try:
        if options.http_port >= 0:
            front_ends["http"] = await _start_http(dataplane, options)
        if options.grpc_port >= 0:
            front_ends["grpc"] = await _start_grpc(dataplane, options)
        if options.metrics_port >= 0:
            front_ends["metrics"] = await _start_metrics(dataplane, options)
        await dataplane.start()
        for url in options.consume:
            running.consumers.append(Consumer(dataplane, source_of(url)))
            running.consumers[-1].start()
    except BaseException:
        await shut_down(running, 0.0)
        raise
    # What is alive now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    return running


async def shut_down(running: Running, timeout_s: float) -> bool:
    """Readiness first, then the doors, then the requests in flight, then the models."""
    running.dataplane.begin_drain()
    await asyncio.gather(*(consumer.stop(timeout_s) for consumer in running.consumers))
    for front_end in running.front_ends.values():
        front_end.close()
    await asyncio.gather(
        *(front_end.wait_closed(timeout_s) for front_end in running.front_ends.values())
    )
    finished = await running.dataplane.close(timeout_s)
    if not finished:
        _log.warning("exit timeout expired after %g s with requests in flight", timeout_s)
    return finished


def explain(failures: dict[str, str]) -> str:
    """The causes of all models that failed to load, one line each."""
    causes = "".join(f"\n  {name}: {reason}" for name, reason in sorted(failures.items()))
    return (
        f"{len(failures)} model(s) failed to load (--no-exit-on-error serves the others):{causes}"
    )


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


async def _start_http(dataplane: DataPlane, options: ServerOptions) -> FrontEnd:
    try:
        from tuili.server import http
    except ImportError as error:
        raise _missing_extra(error) from error

    limits = http.HttpLimits(
        max_json_bytes=options.max_input_bytes,
        restrictions=Restrictions(read_keys(options.http_restricted_api)),
    )
    refusals = http.Refusals(
        overload_status=options.overload_status,
        json_mistake_status=500 if options.compat == "triton" else 400,
    )
    try:
        return await http.start(
            dataplane,
            options.host,
            options.http_port,
            limits,
            refusals=refusals,
            webhooks=Webhooks(options.allow_webhook),
            tls=_tls(options, "http/1.1"),
        )
    except OSError as error:
        raise _cannot_listen("http", options.http_port, error) from error


async def _start_grpc(dataplane: DataPlane, options: ServerOptions) -> FrontEnd:
    try:
        from tuili.server import grpc
    except ImportError as error:
        raise _missing_extra(error) from error

    if options.tls_certificate and options.grpc_impl == "grpcio":
        raise Unsupported("--grpc-impl grpcio has no TLS; the native implementation has")
    keys = read_keys(options.grpc_restricted_protocol)
    restrictions = Restrictions(keys, "protocol", "triton-grpc-protocol-")
    try:
        return await grpc.start(
            dataplane,
            options.host,
            options.grpc_port,
            grpc.GrpcLimits(restrictions=restrictions),
            grpc_impl=options.grpc_impl,
            tls=_tls(options, "h2"),
        )
    except (OSError, RuntimeError) as error:
        raise _cannot_listen("grpc", options.grpc_port, error) from error


def _tls(options: ServerOptions, protocol: str) -> ssl.SSLContext | None:
    """The context of a front end; None for plain text."""
    certificate, key = options.tls_certificate, options.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidArgument(
            "--tls-certificate and --tls-key go together, and one of them is missing"
        )
    return server_context(certificate, key, protocol=protocol)


async def _start_metrics(dataplane: DataPlane, options: ServerOptions) -> FrontEnd:
    from tuili.server import http

    try:
        return await http.start_metrics(dataplane, options.host, options.metrics_port)
    except OSError as error:
        raise _cannot_listen("metrics", options.metrics_port, error) from error


def _missing_extra(error: ImportError) -> Unsupported:
    return Unsupported(f"{error}; serving needs `pip install 'tuili[server]'`")


def _cannot_listen(name: str, port: int, error: Exception) -> Unavailable:
    return Unavailable(
        f"cannot listen on {name} port {port}: {error}; choose another with --{name}-port, "
        "or -1 to do without"
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def configure_logging(level: str) -> None:
    """Log to stderr, one line per event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("tuili")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def allow_many_connections() -> None:
    """Raise the soft limit of descriptors, which shells set to 1024, as far as is allowed."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def keep_memory_warm() -> None:
    """Tell glibc to keep freed memory: fresh pages cost 2 us each, 0.35 ms for a 600 kB tensor."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _WARM_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _WARM_BYTES)

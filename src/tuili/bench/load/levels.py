"""Load: requests at a concurrency or a rate, and what came of them: one level each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final

from tuili.bench.load.arrivals import Constant, Poisson
from tuili.bench.load.driver import Driver
from tuili.bench.load.exchange import Channel, Exchange, Finished, Log, Verdict
from tuili.bench.load.grpc_channel import GrpcChannel
from tuili.bench.load.http_channel import HttpChannel
from tuili.bench.load.processes import cpu_seconds
from tuili.bench.load.search import Promise, largest_rate
from tuili.bench.load.sockets import Target
from tuili.bench.load.windows import Window, agree, summarize
from tuili.errors import InvalidArgument

DRAIN_S: Final = 10.0
_SPARE_CHANNELS: Final = 256  # an open loop may open so many more


@dataclass(frozen=True, slots=True)
class Settings:
    """How to load; seconds."""

    warm_up_s: float = 1.0
    window_s: float = 1.0
    windows: int = 10  # at most; fewer once three agree
    tolerance: float = 0.1
    connections: int = 0  # gRPC: connections that share the concurrency; 0: one each
    variety: int = 8  # different inputs
    seed: int = 0
    metronome: bool = False  # open loop with equal gaps instead of Poisson's
    server_pid: int = 0  # to tell its CPU time per request


@dataclass(frozen=True, slots=True)
class Level:
    """What came of one concurrency (closed loop) or one rate (open loop)."""

    loop: str
    load: float
    window: Window
    stable: bool
    rates: list[float]  # of all windows
    cpu_us: float | None = None  # of the server and its children, per answer
    texts: dict[str, int] = field(default_factory=dict[str, int])


class Load:
    """A load of given requests; `closed` and `open` measure one level each.

    `exchanges(count)` gives at least so many requests.
    """

    def __init__(
        self, target: Target, settings: Settings, exchanges: Callable[[int], list[Exchange]]
    ) -> None:
        self._target = target
        self._settings = settings
        self._exchanges = exchanges

    def closed(self, concurrency: int) -> Level:
        """`concurrency` requests under way at any time."""
        connections, streams = self._spread(concurrency)
        with self._driver(concurrency, streams) as (driver, log):
            driver.closed(connections)
            return self._measure(driver, log, "closed", concurrency)

    def open(self, rate: float) -> Level:
        """`rate` requests a second, however long their answers take."""
        settings = self._settings
        first = min(max(int(rate * 1e-3), 1), 32)
        with self._driver(first + _SPARE_CHANNELS, 1) as (driver, log):
            arrivals = Constant(rate) if settings.metronome else Poisson(rate, settings.seed)
            driver.open(arrivals, first, first + _SPARE_CHANNELS)
            return self._measure(driver, log, "open", rate)

    def largest_rate(self, promise: Promise) -> tuple[float, list[Level]]:
        """The largest rate of an open loop that keeps a promise, and all that was tried."""
        levels: list[Level] = []
        start = self.closed(8)

        def measure(rate: float) -> Window:
            levels.append(self.open(rate))
            return levels[-1].window

        rate, _ = largest_rate(measure, promise, max(start.window.rate / 4, 1.0))
        return rate, levels

    # ---- steps
    def _spread(self, concurrency: int) -> tuple[int, int]:
        """Connections, and streams of each."""
        wanted = self._settings.connections
        if self._target.protocol == "http" or not wanted:
            return concurrency, 1
        connections = min(wanted, concurrency)
        if concurrency % connections:
            raise InvalidArgument(
                f"a concurrency of {concurrency} cannot be shared by {connections} connections"
            )
        return connections, concurrency // connections

    def _connect(self, streams: int) -> Callable[[Finished], Channel]:
        def http(finished: Finished) -> Channel:
            return HttpChannel(self._target, finished)

        def grpc(finished: Finished) -> Channel:
            return GrpcChannel(self._target, finished, streams)

        return grpc if self._target.protocol == "grpc" else http

    @contextlib.contextmanager
    def _driver(self, under_way: int, streams: int) -> Generator[tuple[Driver, Log]]:
        log = Log()
        driver = Driver(connector(self._target, streams), self._exchanges(under_way + 1), log)
        try:
            yield driver, log
        finally:
            driver.close()

    def _measure(self, driver: Driver, log: Log, loop: str, load: float) -> Level:
        settings = self._settings
        at = time.perf_counter() + settings.warm_up_s
        driver.run(at)
        edges, rates = [at], list[float]()
        before = cpu_seconds(settings.server_pid)
        seen = len(log.done)
        while len(rates) < settings.windows and not agree(rates, settings.tolerance):
            at += settings.window_s
            driver.run(at)
            rates.append((len(log.done) - seen) / settings.window_s)
            seen = len(log.done)
            edges.append(at)
        spent = cpu_seconds(settings.server_pid) - before
        stop = time.perf_counter()
        answered = sum(1 for done in log.done if edges[0] <= done < stop)
        driver.drain(DRAIN_S)
        stable = agree(rates, settings.tolerance)
        start = edges[-4] if stable else edges[0]
        window = summarize(log, start, edges[-1], by_due=loop == "open")
        if not any(verdict is Verdict.GOOD for verdict in log.verdicts):
            raise InvalidArgument(f"no good answer: {'; '.join(list(log.texts)[:3])}")
        cpu_us = spent / answered * 1e6 if settings.server_pid and answered else None
        return Level(loop, load, window, stable, rates, cpu_us, dict(log.texts.most_common(10)))


def connector(target: Target, streams: int) -> Callable[[Finished], Channel]:
    """What makes channels to the target."""

    def http(finished: Finished) -> Channel:
        return HttpChannel(target, finished)

    def grpc(finished: Finished) -> Channel:
        return GrpcChannel(target, finished, streams)

    return grpc if target.protocol == "grpc" else http

"""A front end: a process that takes connections for the owner of the models.

Started as `python -m tuili.server.frontends.main SOCKET`. It ends when the owner's end of the
socket does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from typing import Any, Final

from tuili.backends.kept_memory import keep_memory
from tuili.errors import TuiliError
from tuili.server.dataplane import DataPlane
from tuili.server.descriptors import allow_many_connections
from tuili.server.frontends import grpc_front, http_front
from tuili.server.frontends.lane import made_again
from tuili.server.frontends.messages import (
    Begin,
    Count,
    Done,
    Link,
    LogSettings,
    Offer,
    Refused,
    Retract,
    Stop,
    ToFrontEnd,
    Up,
    options_of,
)
from tuili.server.listening import Countdown
from tuili.server.loading.instances import share_of_cores
from tuili.server.options import ServerOptions
from tuili.server.polling import BusyPoll
from tuili.server.serving.servable import Servable
from tuili.server.startup import KEPT_BYTES, configure_logging, loop_factory
from tuili.server.surplus import Surplus
from tuili.server.telemetry.transfer import Counts, take
from tuili.server.transports import FrontEnd

_log = logging.getLogger("tuili.server")
_COUNT_S: Final = 1.0


def main() -> None:
    """Serve the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_memory(KEPT_BYTES)
    allow_many_connections()
    owner = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        finished = runner.run(_serve(owner))
    sys.exit(0 if finished else 1)


async def _serve(owner: socket.socket) -> bool:
    front = _Front()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: front.link, sock=owner)
    return await front.ended


class _Front:
    """The lane and the doors of this process, as the owner wants them."""

    def __init__(self) -> None:
        self.link = Link(ToFrontEnd, self._take, self._orphaned)
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._lane: _Lane | None = None
        self._doors: list[FrontEnd] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _take(self, message: ToFrontEnd) -> None:
        if isinstance(message, Begin):
            self._later(self._begin(message))
        elif isinstance(message, Stop):
            self._later(self._stop(message.timeout_s))
        elif self._lane is not None:
            self._tell(self._lane, message)

    def _tell(self, lane: _Lane, message: Offer | Retract | Count | LogSettings) -> None:
        if isinstance(message, Offer):
            self._later(lane.offered(message))
        elif isinstance(message, Retract):
            lane.retract(message.model)
            self.link.send(Done(message.number, lane.counts()))
        elif isinstance(message, Count):
            self.link.send(Done(message.number, lane.counts()))
        else:
            lane.dataplane.update_log_settings(message.settings)

    async def _begin(self, begin: Begin) -> None:
        options = options_of(begin.options)
        configure_logging(options.log_level)
        self._lane = lane = _Lane(options)
        if options.busy_poll_us:
            BusyPoll(options.busy_poll_us * 1e-6).watch(lane.dataplane)
        try:
            if options.http_port >= 0:
                self._doors.append(await http_front.start(lane.dataplane, options, begin.http_path))
            if options.grpc_port >= 0:
                self._doors.append(await grpc_front.start(lane.dataplane, options, begin.grpc_path))
        except TuiliError as error:
            self.link.send(Refused(str(error)))
            self._end(False)
            return
        self.link.send(Up())
        self._later(self._count(lane))
        self._later(Surplus(KEPT_BYTES).watch())

    async def _count(self, lane: _Lane) -> None:
        while True:
            await asyncio.sleep(_COUNT_S)
            if counts := lane.counts():
                self.link.send(Done(0, counts))

    async def _stop(self, timeout_s: float) -> None:
        """As the owner's own doors: first shut, then what is under way."""
        end = Countdown(timeout_s)
        for door in self._doors:
            door.close()
        answered = await asyncio.gather(*(door.wait_closed(timeout_s) for door in self._doors))
        if self._lane is None:
            self._end(True)
            return
        finished = await self._lane.dataplane.repository.drain(end.left()) and all(answered)
        self.link.send(Done(0, self._lane.counts()))
        if self._lane.dataplane.access_log is not None:
            self._lane.dataplane.access_log.close()
        self._end(finished)

    def _end(self, finished: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(finished)

    def _orphaned(self) -> None:
        """The owner is gone, and with it the reason to be."""
        if not self.ended.done():
            os._exit(1)

    def _later(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Lane:
    """The models that this process answers; its data plane knows no others, and loads none."""

    def __init__(self, options: ServerOptions) -> None:
        # The cores are shared by all front ends; a run takes this one's.
        threads = options.threads or share_of_cores(options)
        self.dataplane = DataPlane(replace(options, frontends=1, threads=threads))
        self._live = self.dataplane.repository.live
        # The offer that stands for each model; one that was retracted meanwhile does not.
        self._offers: dict[str, Offer] = {}
        self._retired: set[asyncio.Task[None]] = set()

    async def offered(self, offer: Offer) -> None:
        """Make the models, and answer from then on."""
        self._offers[offer.model] = offer
        found: dict[str, Servable] = {}
        for version, place in offer.places.items():
            try:
                servable = await made_again(offer.model, place, self.dataplane.launcher)
            except (TuiliError, OSError) as error:
                _log.info("the owner goes on to answer for model %s: %s", offer.model, error)
                continue
            if servable is not None:
                found[version] = servable
        if offer.default in found:
            found[""] = found[offer.default]
        if self._offers.get(offer.model) is offer and found:
            old = self._live.get(offer.model, {})
            self._live[offer.model] = {**found}
            self._retire(old)
        else:
            self._retire(found)

    def retract(self, model: str) -> None:
        """Answer for a model no more, but for requests that are under way."""
        self._offers.pop(model, None)
        self._retire(self._live.pop(model, {}))

    def counts(self) -> list[Counts]:
        """What was counted since this was asked last."""
        found: list[Counts] = []
        for statistics in self.dataplane.launcher.all_statistics():
            live = self._live.get(statistics.model, {}).get(statistics.version)
            counts = take(statistics, 0 if live is None else live.pending())
            if counts.durations or counts.failures or counts.pending:
                found.append(counts)
        return found

    def _retire(self, versions: Any) -> None:
        for servable in {id(each): each for each in versions.values()}.values():
            task = asyncio.ensure_future(_close(servable))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)


async def _close(servable: Any) -> None:
    await servable.drain()
    await servable.close()


if __name__ == "__main__":
    main()

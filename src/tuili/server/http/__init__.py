"""HTTP/1.1 for the data plane: `start` listens, the object it returns stops."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from tuili.server.dataplane import DataPlane
from tuili.server.http.application import Application
from tuili.server.http.connection import Dispatch
from tuili.server.http.limits import HttpLimits
from tuili.server.http.listener import HttpListener
from tuili.server.http.metrics import MetricsPage
from tuili.server.http.refusals import Refusals

__all__ = ["HttpLimits", "HttpServer", "Refusals", "start", "start_metrics"]

_TICK_S: Final = 0.5
_BACKLOG: Final = 1024


class HttpServer:
    """A listening HTTP front end."""

    def __init__(self, listener: HttpListener, server: asyncio.Server) -> None:
        self._listener = listener
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._port = int(server.sockets[0].getsockname()[1])
        self._tick()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def close(self) -> None:
        """Stop listening; requests under way are answered, idle connections closed."""
        self._server.close()
        self._listener.drain()

    async def wait_closed(self, timeout_s: float | None = None) -> None:
        """Wait until every connection is gone, `timeout_s` at most; cut those that are left."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._listener.emptied()
        except TimeoutError:
            self._listener.abort()
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._listener.tick(self._loop.time())
        self._timer = self._loop.call_later(_TICK_S, self._tick)


async def start(
    dataplane: DataPlane,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: HttpLimits | None = None,
    *,
    refusals: Refusals | None = None,
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
) -> HttpServer:
    """Listen on `host:port` (0 takes a free port) and answer from `dataplane`."""
    limits = limits or HttpLimits()
    application = Application(dataplane, limits, refusals or Refusals())
    return await _listen(application.dispatch, host, port, limits, tls, reuse_port)


async def start_metrics(
    dataplane: DataPlane, host: str = "127.0.0.1", port: int = 8002
) -> HttpServer:
    """Listen on `host:port` for `GET /metrics`."""
    return await _listen(MetricsPage(dataplane).dispatch, host, port, HttpLimits(), None, False)


async def _listen(
    dispatch: Dispatch,
    host: str,
    port: int,
    limits: HttpLimits,
    tls: ssl.SSLContext | None,
    reuse_port: bool,
) -> HttpServer:
    listener = HttpListener(dispatch, limits)
    server = await asyncio.get_running_loop().create_server(
        listener.connect, host, port, backlog=_BACKLOG, reuse_port=reuse_port, ssl=tls
    )
    return HttpServer(listener, server)

"""The metrics port: `GET /metrics` and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from tuili.server.dataplane import DataPlane
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.refusals import Refusals
from tuili.server.http.reply import Buffer, Reply, error_reply
from tuili.server.http.responder import Responder
from tuili.server.slices import Slices
from tuili.server.steps import Steps

_EXPOSITION: Final = b"text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """Shows what the data plane counted to Prometheus."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._responder = Responder(Refusals(), Slices())
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, connection: HttpConnection, head: Head, body: Buffer) -> None:
        """Answer one request; never raises."""
        if head.path != ("metrics",):
            connection.reply(error_reply(404, "Not Found"))
        elif head.method != "GET":
            connection.reply(error_reply(405, "Method Not Allowed", ((b"Allow", b"GET"),)))
        else:
            page = self._dataplane.counted(self._page)
            if isinstance(page, Awaitable):
                task = asyncio.ensure_future(self._later(connection, page))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._responder.send(connection, page)

    def _page(self) -> Steps[Reply]:
        return Reply(200, (yield from self._dataplane.write_metrics()), _EXPOSITION)

    async def _later(self, connection: HttpConnection, page: Awaitable[Steps[Reply]]) -> None:
        self._responder.send(connection, await page)

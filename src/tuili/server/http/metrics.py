"""The metrics port: `GET /metrics` and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final

from tuili.server.dataplane import DataPlane
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.reply import Buffer, Reply, error_reply

_LOG: Final = logging.getLogger("tuili.server.http")
_EXPOSITION: Final = b"text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """Shows what the data plane counted to Prometheus."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._tasks: set[asyncio.Task[None]] = set()

    def dispatch(self, connection: HttpConnection, head: Head, body: Buffer) -> None:
        """Answer one request; never raises."""
        if head.path != ("metrics",):
            connection.reply(error_reply(404, "Not Found"))
        elif head.method != "GET":
            connection.reply(error_reply(405, "Method Not Allowed", ((b"Allow", b"GET"),)))
        else:
            page = self._dataplane.counted(self._page)
            if isinstance(page, Reply):
                connection.reply(page)
            else:
                task = asyncio.ensure_future(_later(connection, page))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _page(self) -> Reply:
        try:
            return Reply(200, (self._dataplane.metrics_text().encode(),), _EXPOSITION)
        except Exception:  # noqa: BLE001 - a bug of ours must not end the connection
            _LOG.exception("metrics could not be collected")
            return error_reply(500, "metrics could not be collected; the server's log says why")


async def _later(connection: HttpConnection, page: Awaitable[Reply]) -> None:
    connection.reply(await page)

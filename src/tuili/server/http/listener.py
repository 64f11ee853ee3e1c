"""The listening side of HTTP: the connections of one loop, what they share, and their clock."""

from __future__ import annotations

import asyncio
from typing import Final

from tuili.server.buffers import BufferPool
from tuili.server.http.connection import Dispatch, HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.limits import HttpLimits

_RECEIVE_BYTES: Final = 64 << 10
_MAX_HEADS: Final = 4096
_MAX_CACHED_HEAD: Final = 2048


class HttpListener:
    """All HTTP connections of one event loop; requests go to `dispatch`, which never raises."""

    def __init__(self, dispatch: Dispatch, limits: HttpLimits) -> None:
        self.dispatch = dispatch
        self.limits = limits
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.buffers = BufferPool()
        self.heads: dict[bytes, Head] = {}
        self.now = 0.0  # a coarse clock, moved by `tick`
        self.draining = False
        self._connections: set[HttpConnection] = set()
        self._emptied = asyncio.Event()

    def connect(self) -> HttpConnection:
        """A connection for a client that is about to come."""
        return HttpConnection(self)

    def opened(self, connection: HttpConnection) -> None:
        """A client came."""
        self._connections.add(connection)
        if self.draining or len(self._connections) > self.limits.max_connections:
            connection.drain()

    def closed(self, connection: HttpConnection) -> None:
        """A client went."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def remember(self, block: bytes, head: Head) -> None:
        """Keep a parsed head for the next request that begins with the same bytes."""
        if len(block) > _MAX_CACHED_HEAD:
            return
        if len(self.heads) >= _MAX_HEADS:
            del self.heads[next(iter(self.heads))]
        self.heads[block] = head

    def tick(self, now: float) -> None:
        """Move the clock, and end connections that took too long."""
        self.now = now
        for connection in list(self._connections):
            connection.check(now)

    def drain(self) -> None:
        """Let go of idle clients; the others get their answer and `Connection: close`."""
        self.draining = True
        for connection in list(self._connections):
            connection.drain()

    async def emptied(self) -> None:
        """Returns when no connection is left."""
        while self._connections:
            self._emptied.clear()
            await self._emptied.wait()

    def abort(self) -> None:
        """Cut all connections."""
        for connection in list(self._connections):
            connection.abort()

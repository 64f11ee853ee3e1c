"""The listening side of gRPC: the connections of one loop, what they share, and their clock."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from tuili.server.buffers import BufferPool
from tuili.server.dataplane import DataPlane
from tuili.server.grpc.connection import GrpcConnection
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits

_RECEIVE_BYTES: Final = 64 << 10
_TICK_S: Final = 1.0
_BACKLOG: Final = 1024


class GrpcListener:
    """All gRPC connections of one event loop."""

    def __init__(self, dataplane: DataPlane, limits: GrpcLimits) -> None:
        self.limits = limits
        self.inference = Inference(dataplane)
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.buffers = BufferPool()
        self.assembly = (limits.max_message_bytes, limits.max_decompressed_bytes, self.buffers.take)
        self.now = 0.0  # a coarse clock, moved by `tick`
        self._connections: set[GrpcConnection] = set()
        self._draining = False
        self._emptied = asyncio.Event()

    def connect(self) -> GrpcConnection:
        """A connection for a client that is about to come."""
        return GrpcConnection(self)

    def opened(self, connection: GrpcConnection) -> None:
        """A client came."""
        self._connections.add(connection)
        if self._draining or len(self._connections) > self.limits.max_connections:
            connection.drain()

    def closed(self, connection: GrpcConnection) -> None:
        """A client went."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def tick(self, now: float) -> None:
        """Move the clock, and end what took too long."""
        self.now = now
        for connection in list(self._connections):
            connection.check(now)

    def drain(self) -> None:
        """Ask all clients to leave."""
        self._draining = True
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


class NativeServer:
    """A listening gRPC front end of our own."""

    def __init__(self, listener: GrpcListener, server: asyncio.Server) -> None:
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
        """Stop listening; calls under way are finished."""
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


async def start_native(
    dataplane: DataPlane,
    host: str,
    port: int,
    limits: GrpcLimits,
    tls: ssl.SSLContext | None,
    reuse_port: bool,
) -> NativeServer:
    """Listen on `host:port` with our own HTTP/2."""
    listener = GrpcListener(dataplane, limits)
    if tls is not None:
        tls.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(
        listener.connect, host, port, backlog=_BACKLOG, reuse_port=reuse_port, ssl=tls
    )
    return NativeServer(listener, server)

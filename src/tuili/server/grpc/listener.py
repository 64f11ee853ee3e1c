"""What the gRPC connections of one event loop share."""

from __future__ import annotations

from typing import Final

from tuili.server.buffers import BufferPool
from tuili.server.grpc.assembly import Assembly
from tuili.server.grpc.connection import GrpcConnection
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.logged import LoggedStream
from tuili.server.grpc.stream import GrpcStream
from tuili.server.listening import Connections
from tuili.server.telemetry.access_log import AccessLog

_RECEIVE_BYTES: Final = 64 << 10


class GrpcListener:
    """Makes connections."""

    def __init__(
        self, inference: Inference, limits: GrpcLimits, access_log: AccessLog | None = None
    ) -> None:
        self.limits = limits
        self.connections = Connections(limits.max_connections)
        self.inference = inference
        self.access_log = access_log
        self.stream_class = GrpcStream if access_log is None else LoggedStream
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.buffers = BufferPool()
        most_bytes = min(limits.max_message_bytes, limits.room.most_bytes)
        self.assembly = Assembly(most_bytes, limits.max_decompressed_bytes, self.buffers.take)

    def connect(self) -> GrpcConnection:
        """A connection for a client that is about to come."""
        self.assembly.loop = self.inference.loop = self.connections.loop
        return GrpcConnection(self)

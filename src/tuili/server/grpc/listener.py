"""What the gRPC connections of one event loop share."""

from __future__ import annotations

from typing import Final

from tuili.server.buffers import BufferPool
from tuili.server.dataplane import DataPlane
from tuili.server.grpc.connection import GrpcConnection
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.listening import Connections

_RECEIVE_BYTES: Final = 64 << 10


class GrpcListener:
    """Makes connections."""

    def __init__(self, dataplane: DataPlane, limits: GrpcLimits) -> None:
        self.limits = limits
        self.connections = Connections(limits.max_connections)
        self.inference = Inference(dataplane)
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.buffers = BufferPool()
        self.assembly = (limits.max_message_bytes, limits.max_decompressed_bytes, self.buffers.take)

    def connect(self) -> GrpcConnection:
        """A connection for a client that is about to come."""
        return GrpcConnection(self)

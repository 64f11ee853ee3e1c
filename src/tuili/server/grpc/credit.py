"""Our flow-control windows (RFC 9113 section 5.2): large, and given back at half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuili.server.grpc import frames as h2
from tuili.server.grpc.backlog import Backlog
from tuili.server.grpc.frames import ConnectionFault
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.outgoing import Outgoing

if TYPE_CHECKING:
    from tuili.server.grpc.stream import GrpcStream


class Credit:
    """What a client sent that it was not yet allowed to send again."""

    def __init__(self, outgoing: Outgoing, backlog: Backlog, limits: GrpcLimits) -> None:
        self._outgoing = outgoing
        self._backlog = backlog
        self._limits = limits
        self._half_window = limits.connection_window // 2
        self.unacked = 0

    def spend(self, stream: GrpcStream | None, length: int, *, ends: bool) -> None:
        """Count what was received; ConnectionFault where it is more than a window had room for."""
        self.unacked += length
        if self.unacked > self._half_window:
            if self.unacked > self._limits.connection_window:
                raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "connection window exceeded")
            self.renew()
        if stream is None or ends:
            return
        stream.unacked += length
        if stream.unacked > self._limits.stream_window:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, f"window of {stream.number} exceeded")
        self.renew_stream(stream)

    def renew(self) -> None:
        """Let the client send more on the connection, unless what it sent waits to be taken."""
        if self.unacked > self._half_window and not self._backlog.full:
            self._outgoing.write(h2.window_update_frame(0, self.unacked))
            self.unacked = 0

    def renew_stream(self, stream: GrpcStream) -> None:
        """Let the client send more on a stream, unless that has too much to do."""
        if stream.unacked > self._limits.stream_window // 2 and not stream.choked:
            self._outgoing.write(h2.window_update_frame(stream.number, stream.unacked))
            stream.unacked = 0

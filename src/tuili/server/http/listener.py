"""What the HTTP connections of one event loop share."""

from __future__ import annotations

from typing import Final

from tuili.server.buffers import BufferPool
from tuili.server.http.connection import Dispatch, Foresee, HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.limits import HttpLimits
from tuili.server.http.logged import LoggedConnection
from tuili.server.listening import Connections
from tuili.server.telemetry.access_log import AccessLog

_RECEIVE_BYTES: Final = 64 << 10
_MAX_HEADS: Final = 4096
_MAX_CACHED_HEAD: Final = 2048


class HttpListener:
    """Makes connections; their requests go to `dispatch`, which never raises.

    `foresee` tells of a head how its request is refused whatever its body says.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        limits: HttpLimits,
        access_log: AccessLog | None = None,
        foresee: Foresee = lambda _: None,
    ) -> None:
        self._access_log = access_log
        self.dispatch = dispatch
        self.foresee = foresee
        self.limits = limits
        self.connections = Connections(limits.max_connections)
        self.receive_buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.buffers = BufferPool()
        self.heads: dict[bytes, Head] = {}

    def connect(self) -> HttpConnection:
        """A connection for a client that is about to come."""
        if self._access_log is not None:
            return LoggedConnection(self, self._access_log)
        return HttpConnection(self)

    def remember(self, block: bytes, head: Head) -> None:
        """Keep a parsed head for the next request that begins with the same bytes."""
        if len(block) > _MAX_CACHED_HEAD:
            return
        if len(self.heads) >= _MAX_HEADS:
            del self.heads[next(iter(self.heads))]
        self.heads[block], head.block = head, block

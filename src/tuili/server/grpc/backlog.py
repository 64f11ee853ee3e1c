"""Backlog: answers that the client of a connection does not read, and the calls that wait for it.

Windows bound what a client may send, not what it is owed: small requests may have large answers. A
client that does not read would have the server keep all of them. So while much waits for it no
further call begins, and its window for what it sends is not opened again.
"""

from __future__ import annotations

from collections import deque

from tuili.server.grpc.outgoing import Outgoing
from tuili.server.grpc.stream import GrpcStream


class Backlog:
    """The calls of one connection that have come and not begun."""

    def __init__(self, outgoing: Outgoing, most_bytes: int) -> None:
        self._outgoing = outgoing
        self._most = most_bytes
        self.parked: deque[GrpcStream] = deque()

    @property
    def full(self) -> bool:
        """Whether the client has enough to read."""
        return self._outgoing.waiting_bytes > self._most

    def park(self, stream: GrpcStream) -> None:
        """Let a call wait until the client has read."""
        self.parked.append(stream)

    def unpark(self) -> None:
        """Let calls begin for which there is room now."""
        while self.parked and not self.full:
            self.parked.popleft().unpark()

    def clear(self) -> None:
        """The client has gone."""
        self.parked.clear()

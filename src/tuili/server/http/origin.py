"""HttpOrigin: what a request under way tells of where it comes from."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from tuili.server.http.head import Head
from tuili.server.listening import Connections

# The field in which another front end tells whose request it passes on.
PEER: Final = "x-tuili-peer"


class HttpOrigin(asyncio.BufferedProtocol):
    """The side of a connection that models, logs and routers see: `messages.Origin`."""

    __slots__ = ("_connections", "_head", "_transport")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None  # of the request whose body is coming, or under way

    @property
    def head(self) -> Head | None:
        """The head of the request under way."""
        return self._head

    def header(self, name: str) -> str:
        """A field of the request under way, for the router of roll-outs."""
        head = self._head
        return "" if head is None else head.headers.get(name.encode(), b"").decode("latin-1")

    def headers(self) -> dict[str, str]:
        """All fields of the request under way."""
        head = self._head
        found = {} if head is None else head.headers
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in found.items()}

    def address(self) -> str:
        """The peer's address."""
        found = None if self._transport is None else self._transport.get_extra_info("peername")
        if not found and self._head is not None:
            return self.header(PEER)  # From another front end, over a Unix socket.
        return str(found[0]) if found else ""

    @property
    def protocol(self) -> Literal["HTTP"]:
        """The transport."""
        return "HTTP"

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it belongs to, once there is one."""
        return self._connections.loop

    @property
    def closed(self) -> bool:
        """Whether nobody is listening any more."""
        return self._transport is None

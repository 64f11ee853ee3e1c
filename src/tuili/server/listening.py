"""What every transport needs around its connections: the set of them, their clock, and the end."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypedDict

from tuili.server.descriptors import descriptor_of, for_clients
from tuili.server.strangers import Complaints

_TICK_S: Final = 0.5
_HASTY_TICK_S: Final = 0.02
_BATCH: Final = 512  # connections looked at in one go, so that ten thousand do not stall the loop
_BACKLOG: Final = 1024
_FAREWELL_S: Final = 1.0  # for what is said last to arrive
TIME_OVER: Final = (
    "the server is shutting down and waits no longer for this request (--exit-timeout); ask another"
)
_CROWDED: Final = "the server has as many connections as it may ({}); try again later"
_HANDSHAKE_S: Final = 20.0  # the loops' own is a minute, in which a client counts as none


class Countdown:
    """What is left of a time that several things may take together."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds

    def left(self) -> float:
        """Seconds, 0 at least."""
        return max(0.0, self._end - self._loop.time())


class Connection(Protocol):
    """What can be told to any connection."""

    def check(self, now: float) -> None:
        """Look at the clock: end what took too long."""
        ...

    def drain(self) -> None:
        """Close as soon as what is under way is answered."""
        ...

    def dismiss(self, text: str) -> bool:
        """Refuse what is under way with this text, and close; whether something was."""
        ...

    def turn_away(self, text: str) -> None:
        """Refuse a client that has only just come, and close."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Connections:
    """The open connections of one front end, and a coarse clock for them."""

    def __init__(self, max_connections: int, most_descriptor: int | None = None) -> None:
        self.now = 0.0
        self.complaints = Complaints()
        self.draining = False
        self.loop: asyncio.AbstractEventLoop | None = None  # once it listens
        self._max = max_connections
        self._most_descriptor = for_clients() if most_descriptor is None else most_descriptor
        self._open: set[Connection] = set()
        self._unchecked: list[Connection] = []
        self._emptied = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._open.add(connection)
        if self.draining:
            connection.drain()
        elif len(self._open) > self._max:
            connection.turn_away(_CROWDED.format(self._max))
        elif descriptor_of(transport) >= self._most_descriptor:
            # Which is the lowest free one: as many are taken, whoever has them.
            self.complaints.crowd(self._most_descriptor)
            connection.turn_away(_CROWDED.format(self._most_descriptor))

    def closed(self, connection: Connection) -> None:
        """A client went."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    def tick(self, now: float) -> bool:
        """Move the clock and check the next connections; whether some of this round are left."""
        self.now = now
        if not self._unchecked:
            self._unchecked = list(self._open)
        batch, self._unchecked = self._unchecked[:_BATCH], self._unchecked[_BATCH:]
        for connection in batch:
            connection.check(now)
        return bool(self._unchecked)

    def drain(self) -> None:
        """Ask all clients to leave; those with work under way get their answers first."""
        self.draining = True
        for connection in list(self._open):
            connection.drain()

    async def emptied(self) -> None:
        """Returns when no connection is left."""
        while self._open:
            self._emptied.clear()
            await self._emptied.wait()

    def dismiss(self) -> int:
        """Refuse all that is under way; of how many connections something was."""
        return sum([connection.dismiss(TIME_OVER) for connection in list(self._open)])

    def abort(self) -> None:
        """Cut all connections."""
        for connection in list(self._open):
            connection.abort()


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and how."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    reuse_port: bool = False
    # A Unix socket instead.
    path: str = ""


class _Secure(TypedDict, total=False):
    ssl: ssl.SSLContext
    ssl_handshake_timeout: float


class Listening:
    """A front end that listens; made by `listen`."""

    def __init__(
        self,
        connections: Connections,
        server: asyncio.Server,
        welcome: Callable[[socket.socket], Awaitable[object]],
    ) -> None:
        self._connections = connections
        self._server = server
        self._welcome = welcome
        self._late: set[asyncio.Future[object]] = set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        name = server.sockets[0].getsockname()
        self._port = int(name[1]) if isinstance(name, tuple) else 0
        self._tick()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def close(self) -> None:
        """Stop listening; what is under way is answered, idle connections are closed."""
        self._take_waiting()
        self._server.close()
        self._connections.drain()

    def _take_waiting(self) -> None:
        """Clients that the kernel has let in, but not the loop: closing would cut them off."""
        for listener in self._server.sockets:
            with socket.socket(fileno=os.dup(listener.fileno())) as door:
                for client in _accepted(door):
                    task = asyncio.ensure_future(self._welcome(client))
                    self._late.add(task)
                    task.add_done_callback(self._late.discard)

    async def wait_closed(self, timeout_s: float | None = None) -> bool:
        """Wait until every connection is gone, `timeout_s` at most; false when some had to go.

        These are told so, and cut if they do not take it.
        """
        finished = True
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*self._late, return_exceptions=True)
                await self._connections.emptied()
        except TimeoutError:
            finished = not self._connections.dismiss()
            if not await gone_in_time(self._connections.emptied()):
                self._connections.abort()
        if self._timer is not None:
            self._timer.cancel()
        return finished

    def _tick(self) -> None:
        more = self._connections.tick(self._loop.time())
        self._timer = self._loop.call_later(_HASTY_TICK_S if more else _TICK_S, self._tick)


async def gone_in_time(all_gone: Awaitable[object]) -> bool:
    """Whether those that were told to go have gone before they are to be cut."""
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await all_gone
    except TimeoutError:
        return False
    return True


def _accepted(door: socket.socket) -> Iterator[socket.socket]:
    door.setblocking(False)
    while True:
        try:
            client, _ = door.accept()
        except OSError:  # nobody is left, or one that has gone again; the door closes either way
            return
        client.setblocking(False)
        yield client


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel find out when a silent client is no more."""
    found = transport.get_extra_info("socket")
    if found is not None and found.family in (socket.AF_INET, socket.AF_INET6):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def listen(
    connect: Callable[[], asyncio.BaseProtocol], connections: Connections, address: Address
) -> Listening:
    """Begin to listen; every client gets a protocol from `connect`."""
    connections.loop = loop = asyncio.get_running_loop()

    secure: _Secure = {}
    if address.tls is not None:
        secure = {"ssl": address.tls, "ssl_handshake_timeout": _HANDSHAKE_S}

    def welcome(client: socket.socket) -> Awaitable[object]:
        return loop.connect_accepted_socket(connect, client, **secure)

    if address.path:
        server = await loop.create_unix_server(connect, address.path, backlog=_BACKLOG)
        return Listening(connections, server, welcome)
    server = await loop.create_server(
        connect,
        address.host,
        address.port,
        backlog=_BACKLOG,
        reuse_port=address.reuse_port,
        **secure,
    )
    return Listening(connections, server, welcome)

"""HTTP of a front end: what is in its lane is answered here, all else is passed on to the owner."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httptools

from tuili.server.dataplane import DataPlane
from tuili.server.http.application import Application
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.limits import HttpLimits
from tuili.server.http.listener import HttpListener
from tuili.server.http.origin import PEER
from tuili.server.http.refusals import Refusals
from tuili.server.http.reply import JSON, Buffer, Reply, error_reply
from tuili.server.http.routes import Match
from tuili.server.listening import Listening, listen
from tuili.server.options import ServerOptions
from tuili.server.transports import cannot_listen, http_address, http_rules

_LOG: Final = logging.getLogger("tuili.server.http")
# Fields about a connection rather than a request (RFC 9110, 7.6.1), and those written anew.
_NOT_PASSED: Final = frozenset(
    (b"connection", b"content-length", b"expect", b"keep-alive", b"te", b"trailer", PEER.encode(),
     b"transfer-encoding", b"upgrade")
)  # fmt: skip
_REGION: Final = b"shared_memory_region"
_GONE: Final = "the process that owns the models is gone"


async def start(dataplane: DataPlane, options: ServerOptions, path: str) -> Listening:
    """Listen where the owner does; `path` is its Unix socket."""
    limits, refusals = http_rules(options, dataplane.room)
    owner = Owner(path)
    application = FrontApplication(dataplane, limits, refusals, owner)
    listener = HttpListener(application.dispatch, limits, dataplane.access_log, application.foresee)
    try:
        return await listen(listener.connect, listener.connections, http_address(options))
    except OSError as error:
        raise cannot_listen("http", options.http_port, error) from error


class FrontApplication(Application):
    """Answers infer requests to the models of a lane."""

    def __init__(
        self, dataplane: DataPlane, limits: HttpLimits, refusals: Refusals, owner: Owner
    ) -> None:
        super().__init__(dataplane, limits, refusals)
        self._live = dataplane.repository.live
        self._looks_for_regions = dataplane.options.allow_client_shm
        self._owner = owner

    def dispatch(self, connection: HttpConnection, head: Head, body: Buffer) -> None:
        """Answer one request, now or later; never raises."""
        match = head.route
        if not isinstance(match, Match):
            found = self._routes.find(head.method, head.path)
            if not isinstance(found, Match):
                super().dispatch(connection, head, body)
                return
            match = head.route = found
        if self._is_mine(match, head, body):
            super().dispatch(connection, head, body)
        else:
            self._owner.ask(connection, head, body)

    def _is_mine(self, match: Match, head: Head, body: Buffer) -> bool:
        if match.operation != "infer" or match.label:
            return False
        if match.version not in self._live.get(match.model, ()):
            return False
        if not self._looks_for_regions:
            return True
        # Clients register their memory with the owner.
        text = body if head.json_length is None else body[: head.json_length]
        return not head.content_encoding and _REGION not in bytes(text)


class Owner:
    """The way to the owner: connections, each with one request at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: deque[_Upstream] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, connection: HttpConnection, head: Head, body: Buffer) -> None:
        """Pass a request on; its answer goes to the connection."""
        # The body may be a view of a buffer that is used again before there is a connection.
        parts = [_head(connection, head, len(body)), bytes(body)]
        passed = connection.work = Passed(connection, parts)
        while self._idle:
            upstream = self._idle.pop()
            if upstream.take(passed):
                return
        task = asyncio.ensure_future(self._connect(passed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, passed: Passed) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, upstream = await loop.create_unix_connection(lambda: _Upstream(self), self._path)
        except OSError as error:
            _LOG.error("%s: %s", _GONE, error)
            passed.fail()
            return
        upstream.take(passed)

    def rest(self, upstream: _Upstream) -> None:
        """A connection has nothing to do."""
        self._idle.append(upstream)

    def lost(self, upstream: _Upstream) -> None:
        """A connection is no more."""
        if upstream in self._idle:
            self._idle.remove(upstream)


@dataclass(slots=True)
class Passed:
    """One request that was passed on; also what is told when its client goes away."""

    connection: HttpConnection
    parts: Sequence[bytes]
    upstream: _Upstream | None = None
    gone: bool = False
    begun: bool = False  # whether some of a streamed answer went out
    fields: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])

    def cancel(self) -> None:
        """The client is gone: so is the request, which the owner hears by its connection."""
        self.gone = True
        if self.upstream is not None:
            self.upstream.abort()

    def fail(self) -> None:
        """There is no answer."""
        if self.gone:
            return
        if self.begun:
            self.connection.abort()
        else:
            self.connection.reply(error_reply(503, _GONE))


class _Upstream(asyncio.Protocol):
    """One connection to the owner; the methods `on_*` are called by the parser of its answers."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._passed: Passed | None = None
        self._parts: list[bytes] = []
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def take(self, passed: Passed) -> bool:
        """Send a request; false when the connection is no more."""
        if self._transport is None or self._transport.is_closing():
            return False
        if passed.gone:
            self._owner.rest(self)
            return True
        self._passed, passed.upstream = passed, self
        self._parts, self._chunked = [], False
        self._transport.writelines(passed.parts)
        return True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            _LOG.exception("the owner's answer could not be read")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.lost(self)
        passed, self._passed = self._passed, None
        if passed is not None:
            passed.fail()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    # ---- called by the parser
    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the answer."""
        if self._passed is not None:
            self._passed.fields.append((name, value))

    def on_headers_complete(self) -> None:
        """All fields are there; a streamed answer begins."""
        passed = self._passed
        if passed is None:
            return
        self._chunked = any(name.lower() == b"transfer-encoding" for name, _ in passed.fields)
        if self._chunked:
            passed.begun = True
            passed.connection.start_stream(self._reply(passed))

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._chunked and self._passed is not None:
            self._passed.connection.send_chunk(data)
        else:
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        passed, self._passed = self._passed, None
        if passed is None:
            return
        reply = self._reply(passed)
        self._owner.rest(self)
        # The client's next request may come right here, and take this connection.
        if self._chunked:
            passed.connection.end_stream()
        else:
            passed.connection.reply(reply)

    def _reply(self, passed: Passed) -> Reply:
        kind, headers = JSON, list[tuple[bytes, bytes]]()
        for name, value in passed.fields:
            lower = name.lower()
            if lower == b"content-type":
                kind = value
            elif lower not in _NOT_PASSED:
                headers.append((name, value))
        return Reply(self._parser.get_status_code(), self._parts, kind, tuple(headers))


def _head(connection: HttpConnection, head: Head, length: int) -> bytes:
    """The head of a request as it goes to the owner."""
    lines = [head.method.encode(), b" ", head.target, b" HTTP/1.1\r\n"]
    for name, value in head.headers.items():
        if name not in _NOT_PASSED:
            lines += [name, b": ", value, b"\r\n"]
    lines.append(b"%b: %b\r\n" % (PEER.encode(), connection.address().encode()))
    if length or head.method == "POST":
        lines.append(b"content-length: %d\r\n" % length)
    lines.append(b"\r\n")
    return b"".join(lines)

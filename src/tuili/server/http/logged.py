"""LoggedConnection: an HTTP connection whose requests are noted in the access log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.repeats import Repeat
from tuili.server.http.reply import Buffer, Reply
from tuili.server.http.routes import Match
from tuili.server.telemetry.access_log import AccessLog

if TYPE_CHECKING:
    from tuili.server.http.listener import HttpListener

_CLIENT_GONE = 499


class LoggedConnection(HttpConnection):
    """As any other; what there is to log costs nothing where nothing is logged."""

    __slots__ = ("_began_ns", "_log", "_received", "_sent", "_status")

    def __init__(self, listener: HttpListener, log: AccessLog) -> None:
        super().__init__(listener)
        self._log = log
        self._began_ns = 0
        self._received = self._sent = 0
        self._status = 200

    def _begin(self, head: Head, body: Buffer) -> None:
        self._begins(len(body))
        super()._begin(head, body)

    def _again(self, repeat: Repeat, ident: str, raw: bytes) -> bool:
        self._begins(repeat.head.content_length)
        return super()._again(repeat, ident, raw)

    def _begins(self, received: int) -> None:
        self._began_ns = self.since_ns or time.monotonic_ns()
        self._status, self._received, self._sent = 200, received, 0

    def reply(self, reply: Reply) -> None:
        self._status, self._sent = reply.status, sum(map(len, reply.parts))
        super().reply(reply)

    def reply_bytes(self, parts: list[Buffer]) -> None:
        self._sent = sum(map(len, parts))
        super().reply_bytes(parts)

    def reply_known(self, head: bytes, parts: list[bytes]) -> None:
        self._sent = len(head) + sum(map(len, parts))
        super().reply_known(head, parts)

    def start_stream(self, reply: Reply) -> None:
        self._status = reply.status
        super().start_stream(reply)

    def send_chunk(self, data: bytes) -> None:
        self._sent += len(data)
        super().send_chunk(data)

    def _finish(self, close: bool) -> None:
        self._note(self._status)
        super()._finish(close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._note(_CLIENT_GONE)
        super().connection_lost(exc)

    def _note(self, status: int) -> None:
        """The request under way, if there is one, is over."""
        began_ns, self._began_ns = self._began_ns, 0
        head = self.head
        if not began_ns or head is None:
            return
        match = head.route
        model = match.model if isinstance(match, Match) else ""
        what = (head.method, head.target.decode("latin-1"))
        sizes = (self._received, self._sent)
        self._log.add(self.address(), "HTTP", what, status, began_ns, sizes, model)

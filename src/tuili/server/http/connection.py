"""One HTTP/1.1 connection: bytes become requests, replies become bytes, in order.

Theory of operation.  All connections of a loop receive into one shared buffer, since the loop
reads and reports in one step; an idle connection therefore costs no buffer.  What arrived is taken
over as one `bytes` object, and small bodies are views of it.  A body that did not come whole gets a
block of its own, and the socket then writes straight into that block: the tensors of a large
request are views of memory the kernel filled.

One request is answered at a time.  Bytes that come meanwhile wait in `_tail`, and reading pauses
when they are too many.  A reply may come inside `dispatch` or any time later, also when the client
has closed its half of the connection behind its requests.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from tuili.errors import Overloaded
from tuili.server.http.chunked import ChunkedBody
from tuili.server.http.head import CHUNKED, BadHead, Head, parse_head, require_start
from tuili.server.http.origin import HttpOrigin
from tuili.server.http.repeats import Repeat
from tuili.server.http.reply import (
    EVENTS,
    Buffer,
    Reply,
    encode_endless_head,
    encode_head,
    error_event,
    error_reply,
)
from tuili.server.leaving import gone, leave, part, unread
from tuili.server.listening import keep_alive
from tuili.server.turns import TURN_BYTES, Turn

if TYPE_CHECKING:
    from tuili.server.http.listener import HttpListener

_NEVER: Final = float("inf")
_MAX_TAIL: Final = 256 << 10
_JOIN_BELOW: Final = 16 << 10
_A_LINE: Final = 64
_CLOSE: Final = b"Connection: close\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"
_TRY_AGAIN: Final = ((b"Retry-After", b"1"),)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Cancels(Protocol):
    """What a request under way can be told when its client has gone."""

    def cancel(self) -> object: ...


Dispatch = Callable[["HttpConnection", Head, Buffer], None]
Foresee = Callable[[Head], Reply | None]


class HttpConnection(HttpOrigin):
    """Reads requests, hands each to `listener.dispatch`, writes the answers."""

    __slots__ = (
        "_body", "_busy", "_charged", "_chunked", "_closing", "_consuming",
        "_deadline", "_discarding", "_endless", "_filled", "_half_closed", "_listener",
        "_paused", "_probed", "_room", "_streamed", "_tail", "_turn", "_unsent",
        "_write_blocked", "repeat", "since_ns", "work",
    )  # fmt: skip

    def __init__(self, listener: HttpListener) -> None:
        super().__init__(listener.connections)
        self._listener = listener
        self._room = listener.limits.room
        self._tail = b""
        self._body: memoryview | None = None
        self._filled = 0
        self._chunked: ChunkedBody | None = None
        self._turn = Turn()
        self._charged = False  # whether its body takes room
        self._busy = False
        self._consuming = False
        self._closing = False
        self._discarding = False
        self._endless = False  # whether a streamed reply ends with the connection
        self._streamed: bytes | None = None  # the type of a body that is being streamed
        self._paused = False
        self._half_closed = False  # whether the client sends no more
        self._probed = False  # whether one that may be gone was sent something
        self._write_blocked = False
        self._deadline = _NEVER
        self.since_ns = 0  # when a body began that did not come at once
        self._unsent = 0  # what a slow client had not taken when it was looked at last
        self.work: Cancels | None = None  # set by handlers; told when the client goes away
        self.repeat: Repeat | None = None  # set by handlers

    # The loop's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = self._connections.now + self._listener.limits.head_timeout_s
        self._connections.opened(self, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self._transport)
        self._transport = None
        self._release()
        self._connections.closed(self)
        work, self.work = self.work, None
        if work is not None:
            work.cancel()
        self._body = self._chunked = self.repeat = None
        self._tail = b""

    def get_buffer(self, sizehint: int) -> memoryview:
        body = self._body
        if body is None:
            return self._listener.receive_buffer
        return body[self._filled : self._filled + TURN_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        body = self._body
        if body is not None:
            self._filled += nbytes
            if self._filled == len(body):
                assert self._head is not None
                self._body = None
                self._settle(nbytes)
                self._begin(self._head, body)
            else:
                self._charge(nbytes)
            return
        if self._discarding:
            return
        received = bytes(self._listener.receive_buffer[:nbytes])
        if self._tail:
            received = self._tail + received
        elif not self._busy:
            self._deadline = self._connections.now + self._listener.limits.head_timeout_s
        self._consume(received)

    def eof_received(self) -> bool:
        """The client sends no more: what it asked in whole is answered, then the transport closes.

        TLS knows no such half under any loop.
        """
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return False
        self._half_closed = True
        if not self._owes:
            if not (self._closing or self._write_blocked):
                self._deadline = self._connections.now + self._listener.limits.linger_s
            self._closing = self._discarding = True
            return False
        keep_alive(transport)  # nothing else finds out about a client that is gone
        return True

    @property
    def _owes(self) -> bool:
        """Whether a request is under way, or may be as soon as the client has read."""
        return not self._closing and (self._busy or (self._write_blocked and bool(self._tail)))

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._unsent = sys.maxsize
        if self._transport is not None:
            self._room.weigh_unread(self._transport)
        self._deadline = self._connections.now + self._listener.limits.write_timeout_s

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._room.leave(self._transport)
        self._deadline = _NEVER if self._busy else self._idle_deadline()
        if not self._busy and (self._tail or self._half_closed):
            self._go_on()

    # Requests --------------------------------------------------------------------------------

    def _consume(self, data: bytes) -> None:
        """Dispatch every whole request in `data`; keep the rest for later."""
        heads = self._listener.heads
        at, end = 0, len(data)
        self._consuming = True
        try:
            while at < end and not (self._busy or self._closing or self._write_blocked):
                if self._chunked is not None:
                    at += self._feed_chunked(memoryview(data)[at:])
                    continue
                repeat = self.repeat
                if repeat is not None and (found := repeat.find(data, at)) is not None:
                    stop, ident, raw = found
                    if self._again(repeat, ident, raw):
                        at = stop
                    continue
                stop = data.find(b"\r\n\r\n", at)
                if stop < 0:
                    if end - at > self._listener.limits.max_head_bytes:
                        raise BadHead(431, "request head too large")
                    require_start(data[at])
                    break
                head = heads.get(data[at:stop])
                if head is None:
                    # Nothing before the blank line is wrong, and what follows may say why.
                    head = self._learn(data[at:stop] or data[at : at + _A_LINE])
                at = stop + 4
                need = head.content_length
                if 0 <= need <= end - at:
                    self._begin(head, memoryview(data)[at : at + need] if need else b"")
                    at += need
                else:
                    at = self._await_body(head, data, at)
        except BadHead as error:
            self._refuse(error)
            at = end
        finally:
            self._consuming = False
        self._tail = data[at:] if at < end else b""
        if len(self._tail) > _MAX_TAIL:
            self._pause()

    def _learn(self, block: bytes) -> Head:
        """Parse a head that is not in the cache, and remember it."""
        limits = self._listener.limits
        if len(block) > limits.max_head_bytes:
            raise BadHead(431, "request head too large")
        # RFC 9112 section 2.2: an empty line before the request line is to be ignored.
        block_alone = block[2:] if block.startswith(b"\r\n") else block
        head = parse_head(
            block_alone,
            length_beside_chunks=limits.length_beside_chunks,
            host_optional=limits.host_optional,
        )
        most = self._most_body_bytes()
        if head.content_length > most:
            raise BadHead(
                413,
                f"request body (or request JSON size) of {head.content_length} bytes exceeds the"
                f" maximum allowed input size of {most} bytes",
            )
        self._listener.remember(block, head)
        return head

    def _await_body(self, head: Head, data: bytes, at: int) -> int:
        """Arrange for a body that is not all here; what is here of it has been taken."""
        listener = self._listener
        self._head = head
        self.since_ns = time.monotonic_ns()
        if head.expect_continue and at == len(data):
            refusal = listener.foresee(head)
            if refusal is not None:
                # Whether the body comes all the same, nobody can know (RFC 9110 section 10.1.1).
                self._turn_away(refusal)
                return at
            self._write(_CONTINUE)
        if head.content_length == CHUNKED:
            self._chunked = ChunkedBody(self._most_body_bytes(), listener.limits.max_chunks)
            self._deadline = (
                listener.connections.now
                + listener.limits.body_timeout_s
                + (listener.limits.max_json_bytes / listener.limits.min_body_rate)
            )
            return at
        self._deadline = (
            listener.connections.now
            + listener.limits.body_timeout_s
            + (head.content_length / listener.limits.min_body_rate)
        )
        body = listener.buffers.take(head.content_length, max(head.json_length or 0, 0))
        have = len(data) - at
        body[:have] = memoryview(data)[at:]
        self._body, self._filled = body, have
        self._charge(have)
        return len(data)

    def _most_body_bytes(self) -> int:
        return min(self._listener.limits.max_body_bytes, self._room.most_bytes)

    def _feed_chunked(self, data: memoryview) -> int:
        chunked = self._chunked
        assert chunked is not None
        used = chunked.feed(data)
        if not chunked.done:
            self._charge(used)
        else:
            assert self._head is not None
            self._chunked = None
            self._settle(used)
            self._begin(self._head, memoryview(chunked.data))
        return used

    def _charge(self, size: int) -> None:
        """More of a body is here, for which others may have to give way, or this one."""
        self._charged = True
        self._room.grow(self, size, self._give_way)
        self._turn.read(size, self._transport, self._connections.loop, self._wants_more)

    def _wants_more(self) -> bool:
        return not (self._paused or self._half_closed)

    def _settle(self, size: int) -> None:
        self._charged = True
        self._room.settle(self, size)

    def claim(self, size: int) -> None:
        """More of a body was unpacked: an error where there is no room for it."""
        self._charged = True
        self._room.take(self, size)
        self._turn.read(size, self._transport, self._connections.loop, self._wants_more)

    def _release(self) -> None:
        self._charged = False
        self._room.leave(self)

    def _give_way(self, error: Overloaded) -> None:
        """The request that is coming has no room any more."""
        self._body = self._chunked = None
        self._turn_away(error_reply(503, str(error), _TRY_AGAIN))

    def _begin(self, head: Head, body: Buffer) -> None:
        self._busy = True
        self._head = head
        self._deadline = _NEVER
        self._listener.dispatch(self, head, body)

    def _again(self, repeat: Repeat, ident: str, raw: bytes) -> bool:
        """Begin a request that says what the last one said; false: it must be read."""
        self._busy = True
        self._head = repeat.head
        self._deadline = _NEVER
        if repeat.take(ident, raw):
            return True
        self._busy, self.repeat = False, None
        return False

    def _refuse(self, error: BadHead) -> None:
        """Answer a request that cannot be trusted, and read no more from this client."""
        self._connections.complaints.tell(str(error), self.address())
        self._turn_away(error_reply(error.status, str(error)))

    def _turn_away(self, reply: Reply) -> None:
        self._busy = True
        self._head = None
        self.reply(reply)

    # Replies ---------------------------------------------------------------------------------

    def reply(self, reply: Reply) -> None:
        """Send `reply` to the request under way."""
        if self._transport is None or not self._busy:
            return
        length = sum(map(len, reply.parts))
        persistence = self._persistence()
        head = encode_head(reply, persistence, length)
        if self._head is not None and self._head.method == "HEAD":
            self._write(head)
        elif length < _JOIN_BELOW:
            self._write(b"".join((head, *reply.parts)))
        else:
            self._transport.writelines((head, *reply.parts))
        self._finish(persistence is _CLOSE)

    def reply_bytes(self, parts: list[Buffer]) -> None:
        """Send a reply that is whole already, status line included (the hot path)."""
        transport = self._transport
        if transport is None or not self._busy:
            return
        persistence = self._persistence()
        if persistence:
            parts[0] = bytes(parts[0]).replace(b"\r\n", b"\r\n" + persistence, 1)
        if len(parts) == 1:
            transport.write(parts[0])
        elif sum(map(len, parts)) < _JOIN_BELOW:
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)
        self._finish(persistence is _CLOSE)

    def reply_known(self, head: bytes, parts: list[bytes]) -> None:
        """As `reply_bytes`, of a small reply with a remembered head."""
        request, transport = self._head, self._transport
        if transport is None or not self._busy:
            return
        if request is None or not request.keep_alive or request.old or self._connections.draining:
            self.reply_bytes([head, *parts])
            return
        transport.write(b"".join((head, *parts)))
        self._finish(False)

    def start_stream(self, reply: Reply) -> None:
        """Send the head of a reply whose body follows through `send_chunk`."""
        if self._transport is None:
            return
        self._streamed = reply.content_type
        self._endless = self._head is not None and self._head.old
        if self._endless:
            self._write(encode_endless_head(reply, _CLOSE))
        else:
            self._write(encode_head(reply, self._persistence(), None))

    def send_chunk(self, data: bytes) -> None:
        """Send one piece of a streamed body; a client that reads too slowly loses it."""
        if self._write_blocked and self._transport is not None:
            backlog = self._transport.get_write_buffer_size()
            if backlog > self._listener.limits.max_backlog_bytes:
                self._transport.abort()
                return
            self._room.weigh_unread(self._transport)
        if self._endless:
            self._write(data)
        elif data:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """End a streamed body."""
        if not self._endless:
            self._write(b"0\r\n\r\n")
        self._streamed = None
        self._finish(self._endless or self._persistence() is _CLOSE)
        self._endless = False

    def _persistence(self) -> bytes:
        """The Connection field that tells whether the connection stays, where that must be said."""
        head = self._head
        if head is None or not head.keep_alive or self._connections.draining:
            return _CLOSE
        if self._half_closed and not self._tail:
            return _CLOSE
        return _KEEP if head.old else b""

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _finish(self, close: bool) -> None:
        self._busy = False
        self.work = None
        self.since_ns = 0
        if self._charged:
            self._release()
        if close:
            self._shut()
            return
        if not self._write_blocked:
            self._deadline = self._idle_deadline()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        if (self._tail or self._half_closed) and not self._consuming:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next request that has come; leave a client that has none left to send."""
        if self._tail:
            self._consume(self._tail)
        if self._half_closed and not (self._owes or self._closing):
            self._shut()

    def _idle_deadline(self) -> float:
        return self._connections.now + self._listener.limits.keep_alive_s

    # Endings ---------------------------------------------------------------------------------

    def _shut(self) -> None:
        """Say goodbye, but listen on for a moment.

        Closing with unread bytes makes the kernel send a reset, which can overtake the reply.
        """
        self._closing = self._discarding = True
        self._tail = b""
        transport = self._transport
        if transport is None:
            return
        if self._head is not None and self._body is None and self._chunked is None:
            leave(transport)
        else:
            part(transport)
        self._deadline = self._connections.now + self._listener.limits.linger_s

    def _pause(self) -> None:
        if self._wants_more() and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def check(self, now: float) -> None:
        """Called by the listener's clock: end what has taken too long."""
        if self._half_closed:
            self._look_after()
        if now < self._deadline or self._transport is None:
            return
        receiving = self._body is not None or self._chunked is not None
        if self._write_blocked and self._advances():
            self._deadline = now + self._listener.limits.write_timeout_s
        elif self._discarding or self._write_blocked:
            self._transport.abort()
        elif receiving or self._tail:
            self._body = self._chunked = None
            self._refuse(BadHead(408, "request took too long to arrive"))
        elif not self._paused and unread(self._transport):
            # To close now would reset a connection on which a request has come in time.
            self._deadline = now + self._listener.limits.head_timeout_s
        else:
            leave(self._transport)

    def _look_after(self) -> None:
        """Find out whether a client that sends no more has gone altogether.

        It looks the same until something is sent to it: then its kernel resets the connection. An
        interim response is what every client takes or disregards (RFC 9110 section 15.2).
        """
        if self._transport is None:
            return
        if gone(self._transport):
            self._transport.abort()
        elif not self._probed and self._busy and self._streamed is None:
            self._probed = True
            if self._head is not None and not self._head.old:
                self._write(_CONTINUE)

    def _advances(self) -> bool:
        """Whether a slow client took something since this was asked last."""
        before = self._unsent
        self._unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return 0 < self._unsent < before

    def dismiss(self, text: str) -> bool:
        """Refuse what is under way, since the server waits no longer; whether something was."""
        transport, work = self._transport, self.work
        if transport is None or self._closing:
            return False
        refusal = error_reply(503, text)
        if self._streamed == EVENTS:
            self.send_chunk(error_event(text))
            self.end_stream()
        elif self._streamed is not None:
            transport.abort()  # That its body is not whole must be seen.
        elif self._busy:
            self.reply(refusal)
        elif self._body is not None or self._chunked is not None or self._tail:
            self._body = self._chunked = None
            self._turn_away(refusal)
        else:
            leave(transport)
            return self._write_blocked
        if work is not None:
            work.cancel()
        return True

    def turn_away(self, text: str) -> None:
        """Refuse a client before it asks, and do not stay for more."""
        if self._transport is not None:
            reply = error_reply(503, text, _TRY_AGAIN)
            self._closing = self._discarding = True
            self._transport.write(
                b"".join((encode_head(reply, _CLOSE, sum(map(len, reply.parts))), *reply.parts))
            )
            leave(self._transport)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """Close as soon as the request under way, if any, is answered.

        Others have a moment, for a request that is on its way.
        """
        idle = not (self._busy or self._tail or self._body is not None or self._chunked)
        if not idle or self._transport is None:
            return
        if self._connections.draining:
            leaves = self._connections.now + self._listener.limits.parting_s
            self._deadline = min(self._deadline, leaves)
        else:
            leave(self._transport)

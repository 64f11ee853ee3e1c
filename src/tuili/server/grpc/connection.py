"""One HTTP/2 connection: frames become calls, answers become frames.

Theory of operation.  Bytes arrive in a buffer that all connections share and are taken over as one
`bytes` object; `_consume` walks its frames.  DATA is handed on as it comes, whole frame or not.
What the frames of one read cause to be sent leaves in one write.

`Payload` keeps what of a DATA frame is still to come, `Credit` our flow-control windows; `Outgoing`
obeys theirs.  Whatever breaks the protocol ends the connection by GOAWAY; what only smells of an
attack does so by count.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from tuili.errors import Unavailable
from tuili.server.grpc import frames as h2
from tuili.server.grpc.assembly import is_one_message
from tuili.server.grpc.backlog import Backlog
from tuili.server.grpc.conduct import Conduct
from tuili.server.grpc.credit import Credit
from tuili.server.grpc.express import Said
from tuili.server.grpc.frames import FRAME_BYTES, ConnectionFault, expect, frame_head
from tuili.server.grpc.header_block import HeaderBlock, split
from tuili.server.grpc.heads import HeadDecoder, RequestHead, refusal
from tuili.server.grpc.methods import INFER_PATH
from tuili.server.grpc.outgoing import Outgoing
from tuili.server.grpc.payload import Payload
from tuili.server.grpc.repeats import Repeat, repeat_of
from tuili.server.grpc.stream import GrpcStream
from tuili.server.leaving import leave, part
from tuili.server.listening import keep_alive
from tuili.server.strangers import stranger
from tuili.server.tls import lacks_http2
from tuili.server.turns import Turn

if TYPE_CHECKING:
    from tuili.server.grpc.listener import GrpcListener

_LEAVING: Final = b"leaving."  # the PING behind a GOAWAY
_LEAVE_S: Final = 2.0
_DRIBBLE: Final = 256  # window updates below make us send crumbs, and pieces of heads are some


class GrpcConnection(asyncio.BufferedProtocol):
    """Reads frames, runs calls, writes frames."""

    def __init__(self, listener: GrpcListener) -> None:
        limits = listener.limits
        self._listener = listener
        self._connections = listener.connections
        self._limits = limits
        self.inference = listener.inference
        self.assembly = listener.assembly
        self.access_log = listener.access_log
        self._stream_class = listener.stream_class
        self.max_waiting_messages = limits.max_waiting_messages
        self._transport: asyncio.Transport | None = None
        self._heads = HeadDecoder(limits.max_header_bytes, limits.most_header_bytes)
        self._streams: dict[int, GrpcStream] = {}
        self._last = 0  # the highest stream a client opened
        self._tail = h2.PREFACE[:0]
        self._prefaced = False
        self._configured = False  # whether the client's first SETTINGS came
        self._payload = Payload(self._half_close)
        self._block = HeaderBlock()  # whose CONTINUATION is coming
        # What the last call looked like, if it was a small one; until other headers come.
        self._repeat: Repeat | None = None
        self.said: Said | None = None  # by the last call that may be repeated
        self._conduct = Conduct(limits)
        self.outgoing = Outgoing(self._ended, self._conduct.sent)
        self.backlog = Backlog(self.outgoing, limits.max_waiting_bytes)
        self.room = limits.room
        self._turn = Turn()  # of messages that do not come whole
        self._weighed = False  # whether what this client has not read takes room
        self.credit = Credit(self.outgoing, self.backlog, limits)
        self._closing = False
        self._parted = False
        self._draining = False
        self._leave_by = 0.0  # when a client counts as told, whether it says so or not
        self._deadline = listener.connections.now + limits.preface_timeout_s

    @property
    def now(self) -> float:
        """The listener's coarse clock."""
        return self._connections.now

    # The loop's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        keep_alive(transport)  # a call may rest for hours
        limits = self._limits
        settings = h2.settings_frame(
            {
                h2.MAX_CONCURRENT_STREAMS: limits.max_streams,
                h2.INITIAL_WINDOW_SIZE: limits.stream_window,
                h2.MAX_FRAME_SIZE: limits.max_frame_bytes,
                h2.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
            }
        )
        more = h2.window_update_frame(0, limits.connection_window - h2.DEFAULT_WINDOW)
        self.outgoing.connect(self._transport)
        self._transport.write(settings + more)
        self._connections.opened(self, transport)
        if lacks_http2(self._transport):
            fault = "over TLS, gRPC needs a client that offers h2 by ALPN"
            self._fail(ConnectionFault(h2.INADEQUATE_SECURITY, fault))

    def address(self) -> str:
        """The peer's address."""
        found = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(found[0]) if found else ""

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.leave(self._transport)
        self._transport = None
        self._connections.closed(self)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.cancel()
        self.outgoing.disconnect()
        self.backlog.clear()
        self._payload.forget()
        self._tail = b""

    def get_buffer(self, sizehint: int) -> memoryview:
        lent = self._payload.lent
        return self._listener.receive_buffer if lent is None else lent

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        self.outgoing.held = True
        try:
            if self._payload.lent is not None:
                self._payload.filled(nbytes)
            else:
                received = bytes(self._listener.receive_buffer[:nbytes])
                self._consume(self._tail + received if self._tail else received)
        except ConnectionFault as fault:
            self._fail(fault)
        finally:
            # Once, whatever windows opened: a frame of data for each would be as small as they.
            if self.outgoing.waiting:
                self.outgoing.pump()
            self.outgoing.held = False
            self._flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.outgoing.block()
        self._weigh_unsent()
        self._deadline = self._connections.now + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        self.outgoing.blocked = False
        self._deadline = float("inf")
        self.outgoing.pump()
        self._flush()

    # Frames ----------------------------------------------------------------------------------

    def _consume(self, data: bytes) -> None:
        """Handle every frame in `data`; keep the rest of one that is not whole."""
        at, end, limits, payload = 0, len(data), self._limits, self._payload
        if not self._prefaced:
            at = self._read_preface(data)
        unpack = h2.FRAME_HEAD.unpack_from
        while at < end and self._prefaced:
            if payload.left or payload.padding:
                at = payload.take(data, at, end)
                continue
            if self._repeat is not None and (taken := self._take_repeat(self._repeat, data, at)):
                at = taken
                continue
            if end - at < FRAME_BYTES:
                break
            high, low, kind, flags, number = unpack(data, at)
            length = high << 8 | low
            number &= 0x7FFFFFFF
            h2.check_length(length, limits.max_frame_bytes)
            start = at + FRAME_BYTES
            if kind == h2.DATA and not self._block.stream:
                taken = self._start_data(data, start, length, flags, number)
                if taken < 0:
                    break
                at = start + taken
                continue
            stop = start + length
            if kind == h2.HEADERS and (taken := self._express(flags, number, data, at, stop)):
                at = taken
                continue
            if stop > end:
                parted = split(data, at)
                if not parted:
                    break
                data, at, end = parted, 0, len(parted)
                continue
            self._handle(kind, flags, number, data[start:stop])
            at = stop
        self._tail = data[at:] if at < end else b""
        if payload.left:
            payload.lend()

    def _read_preface(self, data: bytes) -> int:
        """The place after the preface (RFC 9113 section 3.4); 0 while it is not all there."""
        if not h2.PREFACE.startswith(data[: len(h2.PREFACE)]):
            text = stranger(data, "HTTP/2 in plain text, for gRPC") or "no HTTP/2 preface"
            raise ConnectionFault(h2.PROTOCOL_ERROR, text)
        self._prefaced = len(data) >= len(h2.PREFACE)
        return len(h2.PREFACE) if self._prefaced else 0

    def _handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A whole frame other than DATA."""
        self._block.expects(kind, number)
        if not self._configured and kind != h2.SETTINGS:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind == h2.HEADERS:
            self._on_headers(flags, number, payload)
        elif kind == h2.WINDOW_UPDATE:
            self._on_window_update(number, payload)
        elif kind == h2.CONTINUATION:
            self._on_continuation(flags, payload)
        elif kind == h2.RST_STREAM:
            self._on_reset(number, payload)
        elif kind == h2.SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == h2.PING:
            self._on_ping(flags, number, payload)
        elif kind == h2.PRIORITY:
            expect(len(payload) == 5, h2.FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
            expect(number != 0, h2.PROTOCOL_ERROR, "PRIORITY on stream 0")
            self._conduct.control()
        elif kind == h2.GOAWAY:
            expect(number == 0, h2.PROTOCOL_ERROR, "GOAWAY on a stream")
            self._draining, self._leave_by = True, 0.0
            self._close_if_idle()
        elif kind == h2.PUSH_PROMISE:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
        else:
            self._conduct.control()  # RFC 9113 section 4.1: unknown types are ignored

    def _express(self, flags: int, number: int, data: bytes, at: int, stop: int) -> int:
        """Begin a small unary inference that came whole, as most do; where it ends, or 0.

        `data[at:stop]` is its HEADERS. Anything at all unusual goes the long way.
        """
        if flags != h2.END_HEADERS or self._block.stream or self._limits.restrictions:
            return 0
        head = self._heads.known(data[at + FRAME_BYTES : stop])
        begin = stop + FRAME_BYTES
        if head is None or head.path != INFER_PATH or head.http_status != 200 or head.malformed:
            return 0
        if head.data_bytes >= 0:
            return 0
        if len(data) <= begin or not self._configured:
            return 0
        high, low, kind, data_flags, follows = h2.FRAME_HEAD.unpack_from(data, stop)
        end = begin + (high << 8 | low)
        if kind != h2.DATA or data_flags != h2.END_STREAM or follows != number:
            return 0
        if end > len(data) or not is_one_message(data, begin, end, self.assembly.most_bytes):
            return 0
        repeat = repeat_of(data, at, stop, end, head)
        taken = self._take_repeat(repeat, data, at)
        self._repeat = repeat if taken else None
        return taken

    def _take_repeat(self, repeat: Repeat, data: bytes, at: int) -> int:
        """Begin a call that looks like an earlier one, if it does; where it ends, or 0."""
        number = repeat.number(data, at)
        streams = self._streams
        if number <= self._last or not number & 1 or len(streams) >= self._limits.max_streams:
            return 0
        self._last = number
        end = at + repeat.size
        self.credit.spend(None, repeat.counted, ends=True)
        stream = self._stream_class(self, number, repeat.head, self.outgoing.stream_window)
        stream.remote_closed = True
        streams[number] = stream
        stream.infer(data[at + repeat.start : end])
        return end

    # DATA ------------------------------------------------------------------------------------

    def _start_data(self, data: bytes, start: int, length: int, flags: int, number: int) -> int:
        """Begin a DATA frame; the payload bytes consumed, or -1 to wait for the pad length."""
        if not self._configured:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if number == 0 or number > self._last or not number & 1:
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"DATA on idle stream {number}")
        taken = pad = 0
        if flags & h2.PADDED:
            if length and len(data) == start:
                return -1
            pad, taken = h2.pad_length(data, start, length), 1
        stream = self._streams.get(number)
        if stream is not None and stream.remote_closed:
            raise ConnectionFault(h2.STREAM_CLOSED, f"DATA on half-closed stream {number}")
        ends = bool(flags & h2.END_STREAM)
        self.credit.spend(stream, length, ends=ends)
        size = length - taken - pad
        if stream is not None:
            stream.received += size
        if not size and not ends:
            self._conduct.empty()
        if pad or size > len(data) - start - taken:
            self._payload.begin(stream, size, pad, ends=ends)
            return taken
        # The whole payload is here, as for every small request.
        if stream is not None:
            if size:
                stream.feed(data, start + taken, start + taken + size)
            if ends:
                self._half_close(stream)
        return length

    def _half_close(self, stream: GrpcStream) -> None:
        if stream.misfits and not stream.over:
            self._drop(stream.number, h2.PROTOCOL_ERROR)
            return
        stream.half_close()
        if stream.ended:
            self._streams.pop(stream.number, None)
            self._close_if_idle()

    # HEADERS ---------------------------------------------------------------------------------

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        expect(number & 1 == 1, h2.PROTOCOL_ERROR, f"HEADERS on stream {number}")
        self._repeat = None  # since it may change what the block in it means
        if flags & (h2.PADDED | h2.PRIORITIZED):
            payload = h2.unpad_headers(flags, payload)
        ends = bool(flags & h2.END_STREAM)
        if flags & h2.END_HEADERS:
            self._open(number, self._heads.decode(payload), ends)
        else:
            self._block.begin(number, ends=ends)
            self._heads.feed(payload)

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        self._heads.feed(payload)
        if flags & h2.END_HEADERS:
            number, ends = self._block.take()
            self._open(number, self._heads.end(), ends)
        elif len(payload) < _DRIBBLE:
            self._conduct.control()

    def _open(self, number: int, head: RequestHead, ends: bool) -> None:
        """The head of a new call, or the trailers of one."""
        known = self._streams.get(number)
        if known is not None:
            expect(ends and not known.remote_closed, h2.PROTOCOL_ERROR, "second HEADERS")
            self._half_close(known)
            return
        if number <= self._last:
            raise ConnectionFault(h2.STREAM_CLOSED, f"HEADERS on closed stream {number}")
        self._last = number
        if head.malformed:
            self._reset(number, h2.PROTOCOL_ERROR)
        elif len(self._streams) >= self._limits.max_streams:
            self._reset(number, h2.REFUSED_STREAM)
        elif head.http_status != 200 or head.excess_bytes:
            self.outgoing.write(refusal(number, head, self._limits.max_header_bytes))
            if not ends:
                self._reset(number, h2.NO_ERROR)
        else:
            self._begin(self._stream_class(self, number, head, self.outgoing.stream_window), ends)

    def _begin(self, stream: GrpcStream, ends: bool) -> None:
        self._streams[stream.number] = stream
        stream.since = self.now
        stream.admit(self._limits.restrictions)
        if ends:
            self._half_close(stream)

    def _reset(self, number: int, code: int) -> None:
        """Refuse a stream; a peer that provokes many is attacking."""
        if code != h2.NO_ERROR:
            self._conduct.reset()
        self.outgoing.write(h2.rst_frame(number, code))

    def _drop(self, number: int, code: int) -> None:
        """Give up a stream that is under way."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.cancel()
            self._payload.forsake(stream)
        self._reset(number, code)
        self._close_if_idle()

    # Control frames --------------------------------------------------------------------------

    def _on_reset(self, number: int, payload: bytes) -> None:
        expect(len(payload) == 4, h2.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        expect(0 < number <= self._last, h2.PROTOCOL_ERROR, f"RST_STREAM on stream {number}")
        stream = self._streams.pop(number, None)
        if stream is not None:
            if not stream.over:
                self._conduct.reset()  # rapid reset: work started only to be taken back
            stream.cancel()
        else:
            self._conduct.control()
        self._close_if_idle()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        expect(number == 0, h2.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & h2.ACK:
            expect(not payload, h2.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            return
        expect(len(payload) % 6 == 0, h2.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        self._conduct.control()
        for key, value in h2.read_settings(payload):
            self.outgoing.apply(key, value, self._streams.values(), self._limits.max_frame_bytes)
        if not self._configured:
            self._configured = True
            self._deadline = float("inf")
        self.outgoing.write(frame_head(h2.SETTINGS, h2.ACK, 0, 0))

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        expect(len(payload) == 8, h2.FRAME_SIZE_ERROR, "PING of a wrong size")
        expect(number == 0, h2.PROTOCOL_ERROR, "PING on a stream")
        self._conduct.control()
        if not flags & h2.ACK:
            self.outgoing.write(frame_head(h2.PING, h2.ACK, 0, 8) + payload)
        elif payload == _LEAVING:
            self._leave_by = 0.0
            self._close_if_idle()

    def _on_window_update(self, number: int, payload: bytes) -> None:
        expect(len(payload) == 4, h2.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        amount = int.from_bytes(payload, "big") & h2.MAX_WINDOW
        if amount < _DRIBBLE:
            self._conduct.small_update()
        if number == 0:
            expect(amount > 0, h2.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self.outgoing.open_window(amount)
        else:
            expect(number <= self._last, h2.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            if (stream := self._streams.get(number)) is None:
                return
            stream.window += amount
            if amount == 0 or stream.window > h2.MAX_WINDOW:
                self._drop(number, h2.FLOW_CONTROL_ERROR if amount else h2.PROTOCOL_ERROR)

    # Ending --------------------------------------------------------------------------------------

    def read(self, size: int) -> None:
        """More is here of a message that is not whole: others have their turn now and then."""
        # Windows say how much that may be.
        self._turn.read(size, self._transport, self._connections.loop)

    def earned(self) -> None:
        """An answer: an honest client acknowledges it and opens its window again."""
        self._conduct.earned()

    def _ended(self, stream: GrpcStream) -> None:
        """Our side of the stream is done."""
        stream.over = stream.ended = True
        self._conduct.earned()
        known = self._streams.pop(stream.number, None)
        if not stream.remote_closed:
            self._payload.forsake(stream)
            if known is not None:
                # RFC 9113 section 8.1: tell the client to send no more of what is not wanted.
                self.outgoing.write(h2.rst_frame(stream.number, h2.NO_ERROR))
        if self._draining:
            self._close_if_idle()

    def _weigh_unsent(self) -> None:
        if self._transport is not None:
            size = self.room.weigh_unread(self._transport, self.outgoing.waiting_bytes)
            self._weighed = size > 0

    def _flush(self) -> None:
        if self.backlog.parked:
            self.backlog.unpark()
        self.credit.renew()
        if self.outgoing.frames:
            self.outgoing.flush()
        if self._weighed or self.outgoing.waiting_bytes:
            self._weigh_unsent()
        if self._closing and not self.outgoing.held and self._transport is not None:
            self._part(self._transport)

    def _part(self, transport: asyncio.Transport) -> None:
        """Say goodbye, but listen on for a moment.

        Closing with unread bytes makes the kernel send a reset, which can overtake the answers.
        """
        if self._parted:
            return
        self._parted, self._leave_by = True, self.now + self._limits.linger_s
        self.outgoing.disconnect()
        part(transport)

    def _fail(self, fault: ConnectionFault) -> None:
        """Say why, and close."""
        if self._closing:
            return
        self._connections.complaints.tell(str(fault), self.address())
        self.outgoing.write(h2.goaway_frame(self._last, fault.code, str(fault)))
        self._shut()

    def _shut(self) -> None:
        self._closing = True
        self._tail = b""
        self._payload.forget()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.cancel()
        self.backlog.clear()
        self._flush()

    def drain(self) -> None:
        """Ask the client to leave; calls under way are finished first.

        So are those that it sends before it hears of it: what it answers to the PING behind the
        GOAWAY comes after its last call (RFC 9113 section 6.8).
        """
        if self._draining or self._closing:
            return
        self._draining, self._leave_by = True, self.now + _LEAVE_S
        self.outgoing.write(h2.goaway_frame(h2.MAX_WINDOW, h2.NO_ERROR))
        self.outgoing.write(frame_head(h2.PING, 0, 0, 8) + _LEAVING)
        self._flush()

    def _close_if_idle(self) -> None:
        if not self._draining or self._streams or self._closing:
            return
        if self.now >= self._leave_by:
            self.outgoing.write(h2.goaway_frame(self._last, h2.NO_ERROR))
            self._shut()

    def dismiss(self, text: str) -> bool:
        """Refuse the calls under way, since the server waits no longer; whether there were any."""
        found = list(self._streams.values())
        for stream in found:
            stream.refuse(Unavailable(text))
        self._draining, self._leave_by = True, 0.0
        self._close_if_idle()
        self._flush()
        return bool(found)

    def turn_away(self, text: str) -> None:
        """Refuse a client before it asks, and do not stay for more."""
        if self._transport is not None:
            self._closing = True
            self._transport.write(h2.goaway_frame(0, h2.NO_ERROR, text))
            leave(self._transport)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Called by the listener's clock: deadlines, and the counters of another second."""
        self._conduct.next_second()
        self._close_if_idle()
        if self._parted and now >= self._leave_by and self._transport is not None:
            leave(self._transport)
        if now >= self._deadline:
            if not self.outgoing.advances():
                self.abort()
                return
            self._deadline = now + self._limits.write_timeout_s
        for stream in list(self._streams.values()):
            stream.check(now, self._limits)
        for number, stream in list(self.outgoing.waiting.items()):
            if stream.is_stalled(now, self._limits.write_timeout_s):
                self._drop(number, h2.CANCEL)
        self._flush()

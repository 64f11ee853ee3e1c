"""GrpcChannel: unary gRPC calls over one HTTP/2 connection, as many at a time as wanted.

The request's header block is HPACK's second encoding of the same fields, which is what every
client settles to. Windows of both sides are obeyed; ours are as large as they can be.

An answer whose frames are the last one's, but for the stream, and whose message is the last good
one is compared as bytes; any other is read frame by frame.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, NamedTuple
from urllib.parse import unquote

import hpack

from tuili.bench.load.exchange import Exchange, Finished, Verdict, Wrong
from tuili.bench.load.sockets import Stream, Target
from tuili.server.grpc import frames as h2

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_PREFIX: Final = struct.Struct(">BI")
_BUFFER: Final = 2 << 20
_OUR_FRAME: Final = 1 << 20
_GIVE_BACK: Final = 1 << 29
_HEAD: Final = 9
_MAX_TEXT: Final = 200


class _Call:
    """One call: its request, and what came of its answer so far."""

    __slots__ = ("due", "exchange", "message", "opening", "unsent", "window")

    def __init__(self, exchange: Exchange, due: float, window: int) -> None:
        self.exchange = exchange
        self.due = due
        self.message = b""
        self.opening = b""  # the header block that the answer began with
        self.unsent: memoryview | None = None
        self.window = window


class _Frames(NamedTuple):
    """The frames of an answer: what is in them before and after the number of the stream."""

    opening: bytes
    block: bytes
    closing: bytes
    trailers: bytes

    def around(self, message: bytes, number: bytes) -> bytes:
        """The bytes of an answer."""
        data = _frame_start(h2.DATA, 0, len(message))
        pieces = self.opening, self.block + data, message + self.closing, self.trailers
        return number.join(pieces)


class GrpcChannel:
    """One connection of `streams` calls at a time."""

    def __init__(self, target: Target, finished: Finished, streams: int, path: str = INFER) -> None:
        self._stream = Stream(target)
        self._finished = finished
        self.streams = streams
        self.broken = False
        self.fileno = self._stream.fileno
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._calls: dict[int, _Call] = {}
        self._blocked: deque[int] = deque()  # calls whose request a window holds back
        self._next = 1
        self._window = self._stream_window = h2.DEFAULT_WINDOW
        self._max_frame = h2.DEFAULT_FRAME
        self._received = 0
        self._decoder = hpack.Decoder()
        self._statuses: dict[bytes, tuple[bytes, str]] = {}
        self._usual: _Frames | None = None
        encoder = hpack.Encoder()
        fields = [
            (":method", "POST"), (":scheme", "https" if target.tls else "http"), (":path", path),
            (":authority", target.authority), ("te", "trailers"),
            ("content-type", "application/grpc"), ("user-agent", "tuili-bench"),
        ]  # fmt: skip
        self._first: bytes | None = encoder.encode(fields, huffman=False)
        self._block = encoder.encode(fields)
        settings = {
            h2.ENABLE_PUSH: 0,
            h2.INITIAL_WINDOW_SIZE: h2.MAX_WINDOW,
            h2.MAX_FRAME_SIZE: _OUR_FRAME,
        }
        more = h2.window_update_frame(0, h2.MAX_WINDOW - h2.DEFAULT_WINDOW)
        self._stream.send(h2.PREFACE + h2.settings_frame(settings) + more)

    @property
    def busy(self) -> int:
        """Calls under way."""
        return len(self._calls)

    @property
    def blocked(self) -> bool:
        """Whether bytes wait for the kernel."""
        return self._stream.blocked

    def start(self, exchange: Exchange, due: float) -> None:
        """Send a call."""
        number = self._next
        self._next += 2
        call = self._calls[number] = _Call(exchange, due, self._stream_window)
        if exchange.before is not None:
            exchange.before()
        block, self._first = self._first or self._block, None
        stream = number.to_bytes(4, "big")
        head = _frame_start(h2.HEADERS, h2.END_HEADERS, len(block))
        size = len(exchange.payload)
        if size <= self._max_frame and size <= self._window and size <= call.window:
            self._window -= size
            data = _frame_start(h2.DATA, h2.END_STREAM, size)
            self._stream.send(stream.join((head, block + data, exchange.payload)))
        else:
            self._stream.send(head + stream + block)
            call.unsent = memoryview(exchange.payload)
            self._blocked.append(number)
            self._pump()

    def resume(self) -> None:
        """Send on."""
        self._stream.resume()

    def receive(self) -> None:
        """Take what came."""
        stream = self._stream
        while True:
            size = stream.receive_into(self._view[self._filled :])
            self._filled += size
            if size:
                self._consume()
            if stream.lost:
                self._lose(stream.lost)
                return
            if not size or not stream.pending():
                return

    def close(self) -> None:
        """Close."""
        self._stream.close()

    # ---- sending
    def _pump(self) -> None:
        """Send of the requests what the windows allow."""
        for _ in range(len(self._blocked)):
            number = self._blocked.popleft()
            call = self._calls.get(number)
            if call is None or call.unsent is None:
                continue
            while call.unsent is not None:
                room = min(self._window, call.window, self._max_frame, len(call.unsent))
                if room <= 0:
                    self._blocked.append(number)
                    break
                last = room == len(call.unsent)
                flags = h2.END_STREAM if last else 0
                self._stream.send(h2.frame_head(h2.DATA, flags, number, room))
                self._stream.send(call.unsent[:room])
                self._window -= room
                call.window -= room
                call.unsent = None if last else call.unsent[room:]

    # ---- frames
    def _consume(self) -> None:
        """Handle every whole frame in the buffer."""
        at, filled, view = 0, self._filled, self._view
        unpack = h2.FRAME_HEAD.unpack_from
        while filled - at >= _HEAD:
            if self._usual is not None and (taken := self._take_usual(self._usual, at)):
                at += taken
                continue
            high, low, kind, flags, number = unpack(self._buffer, at)
            stop = at + _HEAD + (high << 8 | low)
            if stop > filled:
                break
            start, at = at + _HEAD, stop
            call = self._calls.get(number)
            if kind == h2.DATA:
                self._on_data(call, view[start:stop], flags)
            elif kind == h2.HEADERS:
                self._on_headers(number, call, bytes(view[start:stop]), flags)
            else:
                self._on_control(kind, flags, number, bytes(view[start:stop]))
        if at < filled:
            rest = bytes(view[at:filled])
            view[: len(rest)] = rest
        self._filled = filled - at

    def _take_usual(self, usual: _Frames, at: int) -> int:
        """The size of an answer in the buffer that is as the last ones were, 0 if none is."""
        number = bytes(self._view[at + 5 : at + _HEAD])
        call = self._calls.get(int.from_bytes(number, "big"))
        good = b"" if call is None else call.exchange.good
        if call is None or call.opening or not good:
            return 0
        whole = usual.around(good, number)
        if at + len(whole) > self._filled or not self._buffer.startswith(whole, at):
            return 0
        self._count(len(good))
        del self._calls[int.from_bytes(number, "big")]
        self._end(call, Verdict.GOOD, "")
        return len(whole)

    def _on_data(self, call: _Call | None, payload: memoryview, flags: int) -> None:
        self._count(len(payload))
        if flags & h2.PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if call is not None:
            call.message = call.message + bytes(payload) if call.message else bytes(payload)

    def _count(self, size: int) -> None:
        """Count bytes against our window, and give them back."""
        self._received += size
        if self._received > _GIVE_BACK:
            self._stream.send(h2.window_update_frame(0, self._received))
            self._received = 0

    def _on_headers(self, number: int, call: _Call | None, block: bytes, flags: int) -> None:
        if not flags & h2.END_HEADERS:
            self._lose("an answer's header block of several frames")
            return
        code, text = self._status(_unpadded(block, flags))
        if flags & h2.END_STREAM and call is not None:
            del self._calls[number]
            self._judge(call, code, text)
            self._learn(call.opening, block)
        elif call is not None:
            call.opening = block

    def _learn(self, block: bytes, trailers: bytes) -> None:
        """Remember the headers of an answer, if they would mean the same in another."""
        if self._usual is None and block in self._statuses and trailers in self._statuses:
            opening = _frame_start(h2.HEADERS, h2.END_HEADERS, len(block))
            closing = _frame_start(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, len(trailers))
            self._usual = _Frames(opening, block, closing, trailers)

    def _status(self, block: bytes) -> tuple[bytes, str]:
        """`grpc-status` and the message in a header block, through a cache while that is sound."""
        found = self._statuses.get(block)
        if found is not None:
            return found
        table = self._decoder.header_table
        before = list(table.dynamic_entries)
        fields = {
            bytes(name): bytes(value) for name, value, *_ in self._decoder.decode(block, raw=True)
        }
        text = unquote(fields.get(b"grpc-message", b"").decode("latin-1"))
        found = fields.get(b"grpc-status", b""), text
        if list(table.dynamic_entries) != before:
            self._statuses.clear()
            self._usual = None
        else:
            self._statuses[block] = found
        return found

    def _judge(self, call: _Call, code: bytes, text: str) -> None:
        exchange, message = call.exchange, call.message
        if code != b"0":
            status = code.decode("latin-1")
            self._end(call, Verdict.REFUSED, f"grpc-status {status}: {text[:_MAX_TEXT]}")
        elif message == exchange.good:
            self._end(call, Verdict.GOOD, "")
        else:
            try:
                exchange.judge({}, _unframed(message))
            except Wrong as wrong:
                self._end(call, Verdict.WRONG, str(wrong))
            else:
                if exchange.repeats:
                    exchange.good = message
                self._end(call, Verdict.GOOD, "")

    def _end(self, call: _Call, verdict: Verdict, text: str) -> None:
        self._finished(call.exchange, call.due, verdict, text)

    def _on_control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == h2.SETTINGS and not flags & h2.ACK:
            for key, value in h2.read_settings(payload):
                self._apply(key, value)
            self._stream.send(h2.frame_head(h2.SETTINGS, h2.ACK, 0, 0))
        elif kind == h2.WINDOW_UPDATE:
            amount = int.from_bytes(payload, "big")
            if number == 0:
                self._window += amount
            elif number in self._calls:
                self._calls[number].window += amount
        elif kind == h2.PING and not flags & h2.ACK:
            self._stream.send(h2.frame_head(h2.PING, h2.ACK, 0, 8) + payload)
        elif kind == h2.RST_STREAM:
            call = self._calls.pop(number, None)
            if call is not None:
                code = int.from_bytes(payload, "big")
                self._end(call, Verdict.REFUSED, f"RST_STREAM {code}")
        elif kind == h2.GOAWAY:
            self.streams = 0  # no new calls here
            self._leave_if_idle()
        if self._blocked:
            self._pump()

    def _apply(self, key: int, value: int) -> None:
        if key == h2.INITIAL_WINDOW_SIZE:
            for call in self._calls.values():
                call.window += value - self._stream_window
            self._stream_window = value
        elif key == h2.MAX_FRAME_SIZE:
            self._max_frame = value
        elif key == h2.MAX_CONCURRENT_STREAMS:
            self.streams = min(self.streams, value)

    def _leave_if_idle(self) -> None:
        self.broken = not self._calls

    def _lose(self, text: str) -> None:
        self.broken = True
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._end(call, Verdict.LOST, text)


def _frame_start(kind: int, flags: int, size: int) -> bytes:
    """The head of a frame, up to the number of its stream."""
    return (size << 16 | kind << 8 | flags).to_bytes(5, "big")


def _unpadded(block: bytes, flags: int) -> bytes:
    start, stop = 0, len(block)
    if flags & h2.PADDED:
        start, stop = 1, stop - block[0]
    if flags & h2.PRIORITIZED:
        start += 5
    return block[start:stop]


def _unframed(data: bytes) -> bytes:
    """The one message in a call's DATA."""
    if len(data) < _PREFIX.size or _PREFIX.unpack_from(data) != (0, len(data) - _PREFIX.size):
        raise Wrong(f"not one uncompressed message: {data[:16]!r}, {len(data)} bytes")
    return data[_PREFIX.size :]

"""The sending half of a connection: answers to frames, as the client's windows allow.

What one read causes to be sent is held until the read is done and leaves in one write.  Data that a
window (RFC 9113 section 5.2) holds back waits on its stream; `pump` sends one frame of each waiting
stream in turn.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Final

from tuili.server.grpc import frames as h2
from tuili.server.grpc.frames import (
    FLOW_CONTROL_ERROR,
    PREFIX_BYTES,
    ConnectionFault,
    expect,
    frame_head,
)
from tuili.server.grpc.stream import GrpcStream
from tuili.server.grpc.varints import Buffer

_DIRECT_ABOVE: Final = 16 << 10  # replies below are joined into one write


class Outgoing:
    """Queues and sends frames.

    `ended` is told of every stream whose last frame went out, `sent` of data that had to wait.
    """

    def __init__(self, ended: Callable[[GrpcStream], None], sent: Callable[[int], None]) -> None:
        self._ended = ended
        self._sent = sent
        self._transport: asyncio.Transport | None = None
        self._window = h2.DEFAULT_WINDOW  # of the connection
        self.stream_window = h2.DEFAULT_WINDOW  # of a new stream
        self.max_frame = h2.DEFAULT_FRAME
        self.waiting: dict[int, GrpcStream] = {}  # streams whose data a window holds back
        self.frames: list[Buffer] = []
        self._direct = False  # whether `frames` has something too large to be joined
        self.held = False  # whether frames are collected for one write
        self.blocked = False  # whether the client reads too slowly
        self._unsent = 0  # what the socket had not taken when it was looked at last
        self.waiting_bytes = 0  # of all streams

    def connect(self, transport: asyncio.Transport) -> None:
        """Begin to send."""
        self._transport = transport

    def disconnect(self) -> None:
        """Forget everything."""
        self._transport = None
        self.waiting.clear()
        self.waiting_bytes = 0
        self.frames.clear()

    def forget(self, stream: GrpcStream) -> None:
        """Nobody waits for a stream's data any more."""
        if self.waiting.pop(stream.number, None) is not None:
            self.waiting_bytes -= sum(map(len, stream.outgoing))
        stream.outgoing.clear()

    def write(self, frame: bytes) -> None:
        """Add a frame that no window counts."""
        self.frames.append(frame)

    def flush(self) -> None:
        """Hand what was collected to the socket."""
        frames, transport = self.frames, self._transport
        if self.held or not frames or transport is None:
            return
        self.frames = []
        if len(frames) == 1:
            transport.write(frames[0])
        elif self._direct:
            transport.writelines(frames)
        else:
            transport.write(b"".join(frames))
        self._direct = False

    def block(self) -> None:
        """The socket takes no more for now."""
        self.blocked = True
        self._unsent = sys.maxsize

    def advances(self) -> bool:
        """Whether the socket took something since this was asked last."""
        before = self._unsent
        self._unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return 0 < self._unsent < before

    # Windows ---------------------------------------------------------------------------------

    def apply(self, key: int, value: int, streams: Iterable[GrpcStream], most_frame: int) -> None:
        """Obey a setting of the client's; frames are never larger than `most_frame`."""
        if key == h2.INITIAL_WINDOW_SIZE:
            expect(value <= h2.MAX_WINDOW, FLOW_CONTROL_ERROR, "initial window too large")
            change = value - self.stream_window
            self.stream_window = value
            for stream in streams:
                stream.window += change
                expect(stream.window <= h2.MAX_WINDOW, FLOW_CONTROL_ERROR, "window overflow")
        elif key == h2.MAX_FRAME_SIZE:
            expect(h2.DEFAULT_FRAME <= value < 1 << 24, h2.PROTOCOL_ERROR, f"frame size {value}")
            self.max_frame = min(value, most_frame)
        elif key == h2.ENABLE_PUSH:
            expect(value <= 1, h2.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")

    def open_window(self, amount: int) -> None:
        """The client takes `amount` bytes more on the connection."""
        self._window += amount
        if self._window > h2.MAX_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "window overflow")

    def pump(self) -> None:
        """Send what the windows allow."""
        waiting = self.waiting
        while waiting and self._window > 0 and not self.blocked:
            sent = False
            for stream in list(waiting.values()):
                room = min(self._window, stream.window, self.max_frame)
                if room > 0:
                    self._send_data(stream, room)
                    sent = True
                if not stream.outgoing:
                    waiting.pop(stream.number, None)
                    if stream.trailer:
                        self.write(stream.trailer)
                        self._ended(stream)
            if not sent:
                return

    def _send_data(self, stream: GrpcStream, room: int) -> None:
        """One DATA frame of at most `room` bytes."""
        pieces: list[Buffer] = []
        size = 0
        outgoing = stream.outgoing
        while outgoing and size < room:
            piece = outgoing.popleft()
            if len(piece) > room - size:
                outgoing.appendleft(piece[room - size :])
                piece = piece[: room - size]
            pieces.append(piece)
            size += len(piece)
        self._window -= size
        stream.window -= size
        self.waiting_bytes -= size
        self._sent(size)
        self.write(frame_head(h2.DATA, 0, stream.number, size))
        self.frames += pieces
        self._direct = self._direct or size > _DIRECT_ABOVE // 2

    # Answers ---------------------------------------------------------------------------------

    def send_answer(self, stream: GrpcStream, parts: list[Buffer]) -> None:
        """Answer a unary call by a message: HEADERS, DATA, trailers."""
        size = sum(map(len, parts))
        prefix = size.to_bytes(PREFIX_BYTES, "big")
        if size < _DIRECT_ABOVE:
            self.send_small(stream, b"".join((prefix, *parts)))
        else:
            self._send_large(stream, [prefix, *parts])

    def send_small(self, stream: GrpcStream, message: bytes) -> None:
        """As `send_answer`, of a message with gRPC's prefix."""
        size = len(message)
        if size > self._window or size > stream.window or size > self.max_frame or self.blocked:
            self._send_large(stream, [message])
            return
        self._window -= size
        number = stream.number.to_bytes(4, "big")
        # HEADERS, then the head of DATA without flags, which is type 0.
        opening = h2.OPEN_BLOCK + (size << 16).to_bytes(5, "big")
        answer = number.join((h2.OPEN_HEAD, opening, message + h2.OK_HEAD, h2.OK_BLOCK))
        if self.frames or self.held or self._transport is None:
            self.frames.append(answer)
        else:
            self._transport.write(answer)
        self._ended(stream)
        if self.frames and not self.held:
            self.flush()

    def _send_large(self, stream: GrpcStream, parts: list[Buffer]) -> None:
        """Send the message as the windows let it through."""
        number = stream.number.to_bytes(4, "big")
        self.write(h2.OPEN_HEAD + number + h2.OPEN_BLOCK)
        stream.trailer = h2.OK_HEAD + number + h2.OK_BLOCK
        self._enqueue(stream, parts)
        self.flush()

    def open_response(self, stream: GrpcStream) -> None:
        """Send the HEADERS of a streaming call at once, as clients wait for them."""
        stream.opened = True
        self.write(h2.open_frame(stream.number))

    def send_message(self, stream: GrpcStream, parts: list[Buffer]) -> None:
        """Send one message of a streaming call."""
        size = sum(map(len, parts))
        self._enqueue(stream, [b"\x00" + size.to_bytes(4, "big"), *parts])
        self.flush()

    def end_call(
        self, stream: GrpcStream, code: int, text: str, pushback_ms: int | None = None
    ) -> None:
        """End a call with a status, after what is queued of it."""
        frame = h2.status_frame(stream.number, code, text, stream.opened, pushback_ms)
        if stream.outgoing:
            stream.trailer = frame
        else:
            self.write(frame)
            self._ended(stream)
        self.flush()

    def _enqueue(self, stream: GrpcStream, parts: list[Buffer]) -> None:
        size = sum(map(len, parts))
        self.waiting_bytes += size
        if size < _DIRECT_ABOVE:
            stream.outgoing.append(memoryview(b"".join(parts)))
        else:
            stream.outgoing.extend(memoryview(part) for part in parts if len(part))
        self.waiting[stream.number] = stream
        self.pump()

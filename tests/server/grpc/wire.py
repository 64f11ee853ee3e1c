"""A client's end of a gRPC connection without any socket, by the `h2` package or byte by byte."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.settings
import numpy as np

from tests.server.fake_dataplane import FakeDataPlane
from tests.server.http.wire import Transport
from tuili.server.grpc import frames
from tuili.server.grpc.frames import frame_head
from tuili.server.grpc.inference import Inference
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.listener import GrpcListener
from tuili.server.grpc.schema import INFERENCE

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
SERVICE = "/inference.GRPCInferenceService/"
BIG = np.arange(200_000, dtype=np.float32)
HELLO = frames.PREFACE + frames.settings_frame({})


@dataclass
class Reply:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int((self.trailers or self.headers)["grpc-status"])

    @property
    def text(self) -> str:
        return unquote((self.trailers or self.headers).get("grpc-message", ""))

    @property
    def messages(self) -> list[bytes]:
        found, data = [], self.data
        while len(data) >= 5:
            flag, size = struct.unpack_from(">BI", data)
            assert flag == 0
            found.append(data[5 : 5 + size])
            data = data[5 + size :]
        assert not data
        return found

    def infer(self) -> Any:
        (message,) = self.messages
        return INFERENCE["ModelInferResponse"].FromString(message)


def framed(message: Any, flag: int = 0) -> bytes:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return struct.pack(">BI", flag, len(data)) + data


def infer_request(
    array: np.ndarray[Any, Any] | None = None, model: str = "identity", **more: Any
) -> Any:
    array = np.arange(4, dtype=np.float32) if array is None else array
    message = INFERENCE["ModelInferRequest"](
        model_name=model, raw_input_contents=[array.tobytes()], **more
    )
    datatype = "FP32" if array.dtype == np.float32 else "INT32"
    name = "IN" if model == "repeat" else "INPUT"
    message.inputs.add(name=name, datatype=datatype, shape=array.shape)
    return message


class Raw:
    """A connection to a server over a fake data plane; bytes in, bytes out."""

    def __init__(
        self, limits: GrpcLimits | None = None, dataplane: Any = None, beside: Raw | None = None
    ) -> None:
        self.dataplane = dataplane or FakeDataPlane()
        if beside is None:
            limits = limits or GrpcLimits()
            self.listener = GrpcListener(Inference(self.dataplane, limits.room), limits)
        else:
            self.listener = beside.listener
        self.transport = Transport()
        self.connection = self.listener.connect()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def feed(self, data: bytes) -> None:
        """Deliver bytes as a socket would: into the connection's buffer, as much as fits."""
        at = 0
        while at < len(data) and not self.transport.closed:
            buffer = self.connection.get_buffer(-1)
            assert len(buffer) > 0
            size = min(len(buffer), len(data) - at)
            buffer[:size] = data[at : at + size]
            self.connection.buffer_updated(size)
            at += size

    @property
    def left(self) -> bool:
        """Whether the server has said its last word."""
        return self.transport.eof or self.transport.closed

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, stream, payload) of everything sent."""
        found, data = [], bytes(self.transport.sent)
        while data:
            high, low, kind, flags, number = frames.FRAME_HEAD.unpack_from(data)
            size = high << 8 | low
            found.append((kind, flags, number, data[9 : 9 + size]))
            data = data[9 + size :]
        return found

    def goaway(self) -> int | None:
        """The error code of the GOAWAY that was sent, if one was."""
        for kind, _, _, payload in self.frames():
            if kind == frames.GOAWAY:
                return int.from_bytes(payload[4:8], "big")
        return None


class Wire(Raw):
    """The same with a whole HTTP/2 client."""

    def __init__(
        self,
        limits: GrpcLimits | None = None,
        settings: dict[int, int] | None = None,
        dataplane: Any = None,
        beside: Raw | None = None,
    ) -> None:
        super().__init__(limits, dataplane, beside)
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.client = h2.connection.H2Connection(config)
        if settings:
            self.client.local_settings = h2.settings.Settings(initial_values=settings)
        self.client.initiate_connection()
        self.replies: dict[int, Reply] = {}
        self.goaways: list[int] = []
        self.acknowledge = True
        self.sync()

    def sync(self) -> None:
        """Exchange bytes until both sides are silent."""
        while True:
            incoming, self.transport.sent = bytes(self.transport.sent), bytearray()
            for event in self.client.receive_data(incoming) if incoming else []:
                self._note(event)
            outgoing = self.client.data_to_send()
            if not outgoing and not self.transport.sent:
                return
            self.feed(outgoing)

    def _note(self, event: Any) -> None:
        number = getattr(event, "stream_id", None)
        reply = self.replies.setdefault(number, Reply()) if number else Reply()
        match event:
            case h2.events.ResponseReceived():
                reply.headers = dict(event.headers)
            case h2.events.TrailersReceived():
                reply.trailers = dict(event.headers)
            case h2.events.DataReceived():
                reply.data += event.data
                if self.acknowledge and event.flow_controlled_length:
                    self.client.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded():
                reply.ended = True
            case h2.events.StreamReset():
                reply.reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goaways.append(int(event.error_code))
            case _:
                pass

    def open(self, path: str = INFER, end: bool = False, **headers: str) -> int:
        """Begin a call; the stream's number is returned."""
        number = self.client.get_next_available_stream_id()
        fields = {
            ":method": "POST", ":scheme": "http", ":path": path, ":authority": "a",
            "te": "trailers", "content-type": "application/grpc",
            **{key.replace("_", "-") if key != "triton_grpc_error" else key: value
               for key, value in headers.items()},
        }  # fmt: skip
        self.client.send_headers(number, list(fields.items()), end_stream=end)
        return number

    def send(self, number: int, data: bytes, end: bool = True, pad: int | None = None) -> None:
        """Send DATA in frames as large as the windows allow."""
        while True:
            room = min(
                self.client.local_flow_control_window(number),
                self.client.max_outbound_frame_size,
            )
            if pad is not None:
                room -= pad + 1
            piece, data = data[:room], data[room:]
            self.client.send_data(number, piece, end_stream=end and not data, pad_length=pad)
            self.sync()
            if not data:
                return

    def call(self, message: Any, path: str = INFER, **headers: str) -> Reply:
        """The reply to a unary call."""
        number = self.open(path, **headers)
        self.send(number, framed(message))
        return self.replies.setdefault(number, Reply())


__all__ = ["HELLO", "INFER", "STREAM", "Raw", "Reply", "Wire", "frame_head", "framed"]


def responses(data: bytes) -> list[Any]:
    kind = INFERENCE["ModelStreamInferResponse"]
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(kind.FromString(data[5 : 5 + size]))
        data = data[5 + size :]
    return found


# Frames byte by byte -----------------------------------------------------------------------


def block(path: str = INFER, *more: tuple[bytes, bytes], method: bytes = b"POST") -> bytes:
    """A request's header block, without HPACK's state."""
    fields = [
        (b":method", method), (b":scheme", b"http"), (b":path", path.encode()),
        (b"content-type", b"application/grpc"), *more,
    ]  # fmt: skip
    return b"".join(frames.literal(name, value) for name, value in fields)


def indexed(name: bytes, value: bytes) -> bytes:
    """A field that goes into HPACK's dynamic table (RFC 7541 section 6.2.1)."""
    return b"\x40" + frames.literal(name, value)[1:]


def headers(number: int, data: bytes, flags: int = frames.END_HEADERS) -> bytes:
    return frame_head(frames.HEADERS, flags, number, len(data)) + data


def data_frame(number: int, data: bytes, flags: int = frames.END_STREAM) -> bytes:
    return frame_head(frames.DATA, flags, number, len(data)) + data


def call_bytes(
    number: int, model: str = "identity", array: np.ndarray[Any, Any] | None = None
) -> bytes:
    message = framed(infer_request(array, model))
    return headers(number, block()) + data_frame(number, message)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return frame_head(kind, flags, number, len(payload)) + payload


def told(raw: Raw) -> bytes:
    """The answer to the PING that was sent last."""
    ping = [payload for kind, _, _, payload in raw.frames() if kind == frames.PING][-1]
    return frame(frames.PING, frames.ACK, 0, ping)


def in_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]

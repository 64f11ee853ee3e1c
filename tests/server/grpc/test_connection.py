from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.grpc.wire import (
    HELLO,
    INFER,
    STREAM,
    Raw,
    Wire,
    frame_head,
    framed,
    infer_request,
)
from tuili.server.grpc import frames
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.schema import HEALTH_V1, INFERENCE
from tuili.server.protocol.restrictions import Restrictions

BIG = np.arange(200_000, dtype=np.float32)
SERVICE = "/inference.GRPCInferenceService/"


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


def call_bytes(number: int, model: str = "identity") -> bytes:
    message = framed(infer_request(model=model))
    return headers(number, block()) + data_frame(number, message)


def test_a_call_is_answered():
    wire = Wire()
    reply = wire.call(infer_request(id="7"))
    assert reply.headers == {":status": "200", "content-type": "application/grpc"}
    assert (reply.status, reply.text, reply.ended) == (0, "", True)
    assert reply.infer().id == "7"
    assert reply.infer().raw_output_contents == [np.arange(4, dtype=np.float32).tobytes()]
    assert wire.connection._streams == {}


def test_errors_are_statuses():
    wire = Wire()
    reply = wire.call(infer_request(model="nope"))
    assert (reply.status, reply.text) == (5, "Request for unknown model: 'nope' is not found")
    assert wire.call(infer_request(model="busy")).status == 14
    assert wire.call(b"\xff").status == 13
    assert wire.call(b"", SERVICE + "Unknown").status == 12
    assert wire.call(infer_request()).status == 0


def test_other_methods_are_answered():
    wire = Wire()
    ready = INFERENCE["ModelReadyRequest"](name="simple")
    (message,) = wire.call(ready, SERVICE + "ModelReady").messages
    assert INFERENCE["ModelReadyResponse"].FromString(message).ready
    health = HEALTH_V1["HealthCheckRequest"]
    assert wire.call(health(), "/grpc.health.v1.Health/Check").messages == [b"\x08\x01"]
    assert wire.call(health(service="x"), "/grpc.health.v1.Health/Check").status == 5


def test_a_slow_method_is_answered_later():
    async def scenario() -> None:
        wire = Wire()
        message = INFERENCE["RepositoryModelLoadRequest"](model_name="m")
        reply = wire.call(message, SERVICE + "RepositoryModelLoad")
        async with asyncio.timeout(5):
            while not reply.ended:
                await asyncio.sleep(0)
                wire.sync()
        assert reply.status == 0
        assert wire.dataplane.loaded == [("m", None)]

    asyncio.run(scenario())


@pytest.mark.parametrize("window", [1, 1000, 65_535, 1 << 20])
def test_large_messages_obey_the_windows(window: int):
    array = BIG[:300] if window == 1 else BIG
    wire = Wire(settings={4: window})
    reply = wire.call(infer_request(array))
    assert reply.infer().raw_output_contents == [array.tobytes()]
    assert reply.status == 0


def test_nothing_is_sent_beyond_the_connections_window():
    wire = Wire(settings={4: 1 << 30})
    wire.acknowledge = False
    reply = wire.call(infer_request(BIG))
    assert len(reply.data) == 65_535
    second = wire.call(infer_request())
    assert not second.ended
    wire.client.increment_flow_control_window(1 << 20)
    wire.sync()
    assert reply.infer().raw_output_contents == [BIG.tobytes()]
    assert second.status == 0


def test_the_windows_we_give_are_given_back():
    wire = Wire(GrpcLimits(stream_window=70_000, connection_window=70_000))
    for _ in range(3):
        assert wire.call(infer_request(BIG)).status == 0


def test_a_large_message_arrives_in_place():
    wire = Wire()
    wire.call(infer_request(BIG))
    first = wire.dataplane.requests[0].inputs[0].data
    wire.call(infer_request(BIG + 1))
    assert first.ctypes.data % 64 == 0
    np.testing.assert_array_equal(first, BIG)
    np.testing.assert_array_equal(wire.dataplane.requests[1].inputs[0].data, BIG + 1)


@pytest.mark.parametrize("pad", [0, 7, 255])
def test_padding_is_dropped(pad: int):
    wire = Wire()
    for array in (BIG[:4], BIG[:60_000]):
        number = wire.open()
        wire.send(number, framed(infer_request(array)), pad=pad)
        assert wire.replies[number].infer().raw_output_contents == [array.tobytes()]


@pytest.mark.parametrize(
    ("encoding", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_messages_are_read(encoding: str, squeeze: Callable[[bytes], bytes]):
    wire = Wire()
    number = wire.open(grpc_encoding=encoding)
    wire.send(number, framed(squeeze(infer_request(BIG).SerializeToString()), 1))
    assert wire.replies[number].infer().raw_output_contents == [BIG.tobytes()]


@pytest.mark.parametrize(
    ("data", "encoding", "status", "text"),
    [
        (framed(b"x", 1), "identity", 3, "no grpc-encoding"),
        (framed(b"x", 1), "snappy", 12, "'snappy' is not supported"),
        (framed(b"x", 1), "gzip", 3, "does not decompress"),
        (framed(gzip.compress(b"x", mtime=0)[:-2], 1), "gzip", 3, "ends too early"),
        (framed(gzip.compress(bytes(3000), mtime=0), 1), "gzip", 8, "larger than max"),
        (framed(bytes(2001)), "identity", 8, "larger than max (2001 vs. 2000)"),
        (framed(b"x", 2), "identity", 3, "compression flag 2"),
        (b"\x00\x00\x00\x00\x05abc", "identity", 13, "inside a message"),
        (b"\x00\x00", "identity", 13, "inside a message"),
        (b"", "identity", 13, "without a message"),
        (framed(b"") * 2, "identity", 13, "more than one message"),
    ],
)
def test_messages_that_are_none_end_their_call_only(
    data: bytes, encoding: str, status: int, text: str
):
    wire = Wire(GrpcLimits(max_message_bytes=2000, max_decompressed_bytes=2000))
    number = wire.open(grpc_encoding=encoding)
    wire.send(number, data)
    reply = wire.replies[number]
    assert (reply.status, reply.ended) == (status, True)
    assert text in reply.text
    assert wire.call(infer_request()).status == 0


def test_a_refusal_before_the_end_stops_the_client():
    wire = Wire(GrpcLimits(max_message_bytes=2000))
    number = wire.open()
    wire.send(number, framed(bytes(5000)), end=False)
    assert wire.replies[number].status == 8
    assert wire.replies[number].reset == 0


def test_a_reset_cancels_the_request():
    wire = Wire()
    number = wire.open()
    wire.send(number, framed(infer_request(model="held")))
    wire.client.reset_stream(number, 8)
    wire.sync()
    assert wire.dataplane.held[0][0].cancelled
    assert wire.connection._streams == {}
    assert wire.call(infer_request()).status == 0


def test_a_lost_connection_cancels_its_requests():
    wire = Wire()
    for _ in range(2):
        wire.send(wire.open(), framed(infer_request(model="held")))
    wire.connection.connection_lost(None)
    assert all(ticket.cancelled for ticket, _, _ in wire.dataplane.held)
    wire.dataplane.held[0][2](wire.dataplane._echo(wire.dataplane.requests[0]))


def in_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_a_deadline_ends_the_call_and_cancels_the_request():
    async def scenario() -> None:
        wire = Wire()
        number = wire.open(grpc_timeout="5S")
        wire.send(number, framed(infer_request(model="held")))
        now = asyncio.get_running_loop().time()
        (ticket, request, _) = wire.dataplane.held[0]
        assert request.deadline == pytest.approx(now + 5, abs=1)
        wire.listener.connections.tick(now + 3)
        wire.sync()
        assert not wire.replies.get(number)
        wire.listener.connections.tick(now + 6)
        wire.sync()
        assert (wire.replies[number].status, wire.replies[number].text) == (4, "Deadline Exceeded")
        assert ticket.cancelled

    in_loop(scenario)


def test_answers_come_when_they_are_ready():
    wire = Wire()
    first = wire.open()
    wire.send(first, framed(infer_request(model="held")))
    assert wire.call(infer_request()).status == 0
    assert first not in wire.replies
    wire.dataplane.release()
    wire.sync()
    assert wire.replies[first].status == 0


def test_a_slow_reader_gets_its_answers_when_it_reads():
    wire = Wire()
    wire.connection.pause_writing()
    reply = wire.call(infer_request(BIG[:4]))
    assert reply.data == b""
    wire.connection.resume_writing()
    wire.sync()
    assert reply.status == 0


# Streams -------------------------------------------------------------------------------------


def responses(data: bytes) -> list[Any]:
    kind = INFERENCE["ModelStreamInferResponse"]
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(kind.FromString(data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def repeat(count: int, **more: Any) -> Any:
    return infer_request(np.array([count], np.int32), "repeat", **more)


def finals(reply: Any) -> list[bool]:
    return [
        item.infer_response.parameters["triton_final_response"].bool_param
        for item in responses(reply.data)
    ]


def test_a_stream_answers_every_request():
    wire = Wire()
    number = wire.open(STREAM)
    wire.sync()
    assert wire.replies[number].headers[":status"] == "200"  # before the first message
    for ident in "ab":
        wire.send(number, framed(infer_request(id=ident)), end=False)
    wire.send(number, framed(repeat(3)), end=False)
    reply = wire.replies[number]
    assert [item.infer_response.id for item in responses(reply.data)] == ["a", "b", "", "", ""]
    assert finals(reply) == [True, True, False, False, True]
    assert not reply.ended
    wire.client.end_stream(number)
    wire.sync()
    assert reply.status == 0


def test_a_final_answer_that_is_empty_comes_when_asked_for():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(repeat(0)), end=False)
    message = repeat(0, id="e")
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    wire.send(number, framed(message))
    reply = wire.replies[number]
    (only,) = responses(reply.data)
    assert (only.infer_response.id, finals(reply), reply.status) == ("e", [True], 0)


def test_answers_keep_the_order_of_their_requests():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model="held", id="1")), end=False)
    wire.send(number, framed(infer_request(id="2")))
    assert responses(wire.replies[number].data) == []
    wire.dataplane.release()
    wire.sync()
    reply = wire.replies[number]
    assert [item.infer_response.id for item in responses(reply.data)] == ["1", "2"]
    assert reply.status == 0


def test_an_error_is_a_message_and_the_stream_goes_on():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model="nope", id="1")), end=False)
    wire.send(number, framed(b"\xff"), end=False)
    wire.send(number, framed(infer_request(id="2")))
    first, second, third = responses(wire.replies[number].data)
    assert "unknown model" in first.error_message
    assert first.infer_response.id == "1"
    assert "malformed" in second.error_message
    assert third.infer_response.id == "2"
    assert wire.replies[number].status == 0


def test_an_error_ends_a_strict_stream():
    wire = Wire()
    number = wire.open(STREAM, triton_grpc_error="true")
    wire.send(number, framed(infer_request(model="nope")), end=False)
    reply = wire.replies[number]
    assert (reply.status, reply.ended, reply.data) == (5, True, b"")


def test_a_stream_whose_responses_are_not_read_is_ended():
    wire = Wire(GrpcLimits(max_waiting_messages=10), settings={frames.INITIAL_WINDOW_SIZE: 0})
    number = wire.open(STREAM)
    wire.send(number, framed(repeat(50)), end=False)
    reply = wire.replies[number]
    assert (reply.status, reply.data) == (8, b"")
    assert wire.connection._streams == {}


def test_a_cancelled_stream_cancels_its_requests():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model="held")), end=False)
    wire.client.reset_stream(number, 8)
    wire.sync()
    assert wire.dataplane.held[0][0].cancelled


def test_a_large_message_on_a_stream():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(BIG)) + framed(infer_request(BIG, id="2")))
    first, second = responses(wire.replies[number].data)
    assert second.infer_response.raw_output_contents == [BIG.tobytes()]
    assert first.infer_response.raw_output_contents == [BIG.tobytes()]


# Bytes ---------------------------------------------------------------------------------------

STREAMED = (
    HELLO
    + headers(1, block()[:20], 0)
    + frame_head(frames.CONTINUATION, frames.END_HEADERS, 1, len(block()) - 20)
    + block()[20:]
    + data_frame(1, framed(infer_request())[:7], 0)
    + frame_head(frames.PING, 0, 0, 8)
    + b"12345678"
    + data_frame(1, b"", 0)
    + call_bytes(3)
    + data_frame(1, framed(infer_request())[7:])
    + frame_head(200, 0, 0, 3)
    + b"xyz"
    + call_bytes(5)
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, len(STREAMED)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_answers(cuts: list[int]):
    whole, pieces = Raw(), Raw()
    whole.feed(STREAMED)
    edges = [0, *sorted(cuts), len(STREAMED)]
    for start, end in pairwise(edges):
        pieces.feed(STREAMED[start:end])
    assert len([kind for kind, *_ in whole.frames() if kind == frames.DATA]) == 3
    assert pieces.transport.sent == whole.transport.sent


@settings(deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", HELLO, HELLO + call_bytes(1), STREAMED[:120]])
)
def test_garbage_never_crashes(garbage: bytes, start: bytes):
    raw = Raw()
    raw.feed(start + garbage)
    raw.connection.connection_lost(None)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=12)
        ),
        max_size=10,
    )
)
def test_random_frames_never_crash(wild: list[tuple[int, int, int, bytes]]):
    raw = Raw()
    raw.feed(HELLO + call_bytes(1))
    for kind, flags, number, payload in wild:
        raw.feed(frame_head(kind, flags, number, len(payload)) + payload)
    raw.connection.connection_lost(None)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return frame_head(kind, flags, number, len(payload)) + payload


P, S, F, C, X = (
    frames.PROTOCOL_ERROR, frames.FRAME_SIZE_ERROR, frames.FLOW_CONTROL_ERROR,
    frames.STREAM_CLOSED, frames.COMPRESSION_ERROR,
)  # fmt: skip
CALM = frames.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", P),
        (frames.PREFACE + call_bytes(1), P),
        (frames.PREFACE + data_frame(1, b""), P),
        (HELLO + frame_head(frames.DATA, 0, 1, (1 << 20) + 1), S),
        (HELLO + frame_head(frames.HEADERS, 4, 1, 70_000), S),
        (HELLO + data_frame(1, b"x"), P),
        (HELLO + data_frame(0, b"x"), P),
        (HELLO + data_frame(2, b"x"), P),
        (HELLO + headers(1, block()) + frame(frames.DATA, 8, 1, b""), S),
        (HELLO + headers(1, block()) + frame(frames.DATA, 8, 1, b"\x05abc"), P),
        (HELLO + headers(2, block()), P),
        (HELLO + headers(0, block()), P),
        (HELLO + call_bytes(3) + call_bytes(1), C),
        (HELLO + call_bytes(3) + call_bytes(3), C),
        (HELLO + headers(1, block()) + headers(1, block()), P),
        (HELLO + call_bytes(1, "held") + data_frame(1, b"x"), C),
        (HELLO + headers(1, b"\xff\xff\xff\xff\xff\xff\xff"), X),
        (HELLO + headers(1, b"\x80"), X),
        (HELLO + headers(1, frames.literal(b"a", b"b")[:-1]), X),
        (HELLO + frame(frames.HEADERS, 4 | 8, 1, b"\xff" + block()), P),
        (HELLO + frame(frames.HEADERS, 4 | 32, 1, b"\0\0\0"), P),
        (HELLO + headers(1, block(), 0) + call_bytes(3), P),
        (HELLO + headers(1, block(), 0) + data_frame(1, b""), P),
        (HELLO + headers(1, block(), 0) + frame(frames.CONTINUATION, 4, 3, b""), P),
        (HELLO + frame(frames.CONTINUATION, 4, 1, b""), P),
        (
            HELLO + headers(1, b"", 0) + frame(frames.CONTINUATION, 0, 1, bytes(30_000)) * 3,
            CALM,
        ),
        (HELLO + headers(1, b"", 0) + frame(frames.CONTINUATION, 0, 1, b"") * 2100, CALM),
        (HELLO + frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), P),
        (HELLO + frame(frames.SETTINGS, 0, 1, b""), P),
        (HELLO + frame(frames.SETTINGS, 0, 0, b"12345"), S),
        (HELLO + frame(frames.SETTINGS, 1, 0, b"123456"), S),
        (HELLO + frames.settings_frame({4: 1 << 31}), F),
        (HELLO + frames.settings_frame({5: 100}), P),
        (HELLO + frames.settings_frame({5: 1 << 24}), P),
        (HELLO + frames.settings_frame({2: 2}), P),
        (HELLO + frame(frames.PING, 0, 0, b"1"), S),
        (HELLO + frame(frames.PING, 0, 1, bytes(8)), P),
        (HELLO + frame(frames.RST_STREAM, 0, 1, bytes(4)), P),
        (HELLO + call_bytes(1) + frame(frames.RST_STREAM, 0, 1, b"1"), S),
        (HELLO + frame(frames.PRIORITY, 0, 1, b"1"), S),
        (HELLO + frame(frames.GOAWAY, 0, 1, bytes(8)), P),
        (HELLO + frame(frames.WINDOW_UPDATE, 0, 0, b"1"), S),
        (HELLO + frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)), P),
        (HELLO + frame(frames.WINDOW_UPDATE, 0, 9, b"\0\0\0\1"), P),
        (HELLO + frames.window_update_frame(0, (1 << 31) - 1), F),
        # HPACK bomb: one field of 4 kB in the table, ten thousand references to it.
        (HELLO + headers(1, block() + indexed(b"b", b"a" * 4000) + b"\xbe" * 10_000), X),
        # Floods: settings, pings, empty data, resets of what has just begun.
        (HELLO + frames.settings_frame({}) * 2100, CALM),
        (HELLO + frame(frames.PING, 0, 0, bytes(8)) * 2100, CALM),
        (HELLO + frame(200, 0, 0, b"") * 2100, CALM),
        (HELLO + frames.window_update_frame(0, 1) * 2100, CALM),
        (HELLO + headers(1, block()) + data_frame(1, b"", 0) * 2100, CALM),
        (
            HELLO
            + b"".join(
                headers(number, block()) + frames.rst_frame(number, 8)
                for number in range(1, 2100, 2)
            ),
            CALM,
        ),
        (HELLO + b"".join(headers(number, b"") for number in range(1, 2100, 2)), CALM),
    ],
)
def test_hostile_frames_end_the_connection(data: bytes, code: int):
    raw = Raw()
    raw.feed(data)
    assert raw.goaway() == code
    assert raw.transport.closed


@pytest.mark.parametrize(
    "data",
    [
        block()[:0],
        block("", (b"x", b"y")),
        block(INFER, (b"Upper", b"x")),
        block(INFER, (b"connection", b"close")),
        block(INFER, (b":path", b"/x")),
        block(INFER, (b":other", b"/x")),
        block(INFER, (b"grpc-timeout", b"1")),
        block(INFER, (b"grpc-timeout", b"123456789S")),
        block(INFER, (b"bad name", b"x")),
    ],
)
def test_malformed_requests_are_reset_alone(data: bytes):
    raw = Raw()
    raw.feed(HELLO + headers(1, data) + call_bytes(3))
    assert (frames.RST_STREAM, 0, 1, P.to_bytes(4, "big")) in raw.frames()
    assert raw.goaway() is None
    assert any(number == 3 and kind == frames.DATA for kind, _, number, _ in raw.frames())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (block(method=b"GET"), b"405"),
        (block().replace(b"application/grpc", b"application/json"), b"415"),
    ],
)
def test_what_is_not_grpc_is_refused_in_http(data: bytes, status: bytes):
    raw = Raw()
    raw.feed(HELLO + headers(1, data, frames.END_HEADERS | frames.END_STREAM))
    (payload,) = [payload for kind, _, number, payload in raw.frames() if number == 1]
    assert payload == frames.literal(b":status", status)


def test_streams_above_the_limit_are_refused():
    raw = Raw(GrpcLimits(max_streams=2))
    raw.feed(HELLO + call_bytes(1, "held") + call_bytes(3, "held") + call_bytes(5))
    assert (frames.RST_STREAM, 0, 5, frames.REFUSED_STREAM.to_bytes(4, "big")) in raw.frames()


def test_data_beyond_our_window_ends_the_connection():
    raw = Raw(GrpcLimits(stream_window=70_000, connection_window=100_000))
    # The service is choked only by streams; here the client ignores what it was granted.
    raw.connection._unacked = 99_999
    raw.feed(HELLO + headers(1, block()) + data_frame(1, bytes(10), 0))
    assert raw.goaway() == F


def test_a_window_that_overflows_resets_its_stream():
    raw = Raw()
    raw.feed(HELLO + call_bytes(1, "held") + frames.window_update_frame(1, (1 << 31) - 1))
    assert (frames.RST_STREAM, 0, 1, F.to_bytes(4, "big")) in raw.frames()
    assert raw.dataplane.held[0][0].cancelled


def test_a_busy_client_may_send_many_control_frames():
    raw = Raw()
    raw.feed(HELLO)
    for number in range(1, 2000, 2):
        updates = frames.window_update_frame(0, 1000) * 4 + frame(frames.PING, 0, 0, bytes(8)) * 4
        raw.feed(call_bytes(number) + updates)
    assert raw.goaway() is None


def test_a_client_of_a_busy_stream_may_send_many_control_frames():
    raw = Raw()
    raw.feed(HELLO)
    updates = frames.window_update_frame(0, 1000) * 4 + frame(frames.PING, 0, 0, bytes(8)) * 4
    raw.feed(headers(1, block(STREAM)))
    message = data_frame(1, framed(infer_request(model="identity")), 0)
    for _ in range(1000):
        raw.feed(message + updates)
    assert raw.goaway() is None


def test_counters_are_per_second():
    raw = Raw()
    raw.feed(HELLO)
    for second in range(1, 4):
        raw.feed(frame(frames.PING, 0, 0, bytes(8)) * 1500)
        raw.listener.connections.tick(float(second))
    assert raw.goaway() is None


def test_silent_clients_are_let_go():
    raw = Raw()
    raw.feed(frames.PREFACE[:10])
    raw.listener.connections.tick(10.0)
    assert not raw.transport.closed
    raw.listener.connections.tick(20.0)
    assert raw.transport.aborted


def test_an_idle_connection_may_stay():
    raw = Raw()
    raw.feed(HELLO + call_bytes(1))
    raw.listener.connections.tick(1e6)
    assert not raw.transport.closed


def test_a_message_that_never_ends_is_given_up():
    raw = Raw()
    raw.feed(HELLO + headers(1, block()) + data_frame(1, framed(infer_request())[:9], 0))
    raw.listener.connections.tick(59.0)
    assert raw.connection._streams
    raw.listener.connections.tick(61.0)
    assert not raw.connection._streams
    assert not raw.transport.closed


def test_a_client_that_never_reads_is_cut_and_a_slow_one_is_not():
    raw = Raw()
    raw.feed(HELLO)
    raw.connection.pause_writing()
    for second, unsent in ((61, 5000), (122, 4000), (183, 3000)):
        raw.transport.unsent = unsent
        raw.listener.connections.tick(float(second))
        assert not raw.transport.aborted
    raw.listener.connections.tick(244.0)
    assert raw.transport.aborted


def test_a_call_whose_client_opens_no_window_is_given_up():
    raw = Raw()
    raw.feed(HELLO + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}) + call_bytes(1))
    raw.listener.connections.tick(1.0)
    raw.listener.connections.tick(60.0)
    raw.feed(frames.window_update_frame(1, 5))
    raw.listener.connections.tick(61.0)
    raw.listener.connections.tick(120.0)
    assert raw.connection.outgoing.waiting
    raw.listener.connections.tick(121.0)
    assert not raw.connection.outgoing.waiting
    assert (frames.RST_STREAM, 0, 1, frames.CANCEL.to_bytes(4, "big")) in raw.frames()


def test_draining_finishes_what_is_under_way():
    raw = Raw()  # the `h2` client takes any GOAWAY for the end
    raw.feed(HELLO + call_bytes(1, "held"))
    raw.listener.connections.drain()
    assert (raw.goaway(), raw.transport.closed) == (0, False)
    raw.feed(told(raw))
    raw.dataplane.release()
    kinds = [(kind, number) for kind, _, number, _ in raw.frames()]
    answered = [(frames.HEADERS, 1), (frames.DATA, 1), (frames.HEADERS, 1), (frames.GOAWAY, 0)]
    assert kinds[-4:] == answered
    assert raw.transport.closed


def told(raw: Raw) -> bytes:
    """The answer to the PING that was sent last."""
    ping = [payload for kind, _, _, payload in raw.frames() if kind == frames.PING][-1]
    return frame(frames.PING, frames.ACK, 0, ping)


def test_draining_closes_idle_connections_that_know_of_it():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    assert (raw.goaway(), raw.transport.closed) == (0, False)
    raw.feed(told(raw))
    assert raw.transport.closed


def test_a_call_that_crosses_the_goaway_is_answered():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    raw.feed(call_bytes(1, "held") + told(raw))
    assert not raw.transport.closed
    raw.dataplane.release()
    assert (frames.DATA, 1) in [(kind, number) for kind, _, number, _ in raw.frames()]
    assert raw.transport.closed


def test_a_client_that_does_not_answer_counts_as_told():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    raw.listener.connections.tick(1.0)
    assert not raw.transport.closed
    raw.listener.connections.tick(2.0)
    assert raw.transport.closed


@pytest.mark.parametrize("model", ["raises", "unwritable"])
def test_a_bug_ends_its_stream_only(model: str):
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model=model)))
    reply = wire.replies[number]
    told = reply.text or responses(reply.data)[0].error_message
    assert "internal error" in told
    assert wire.call(infer_request()).status == 0


def test_an_answer_that_cannot_be_written_is_an_internal_error():
    assert Wire().call(infer_request(model="unwritable")).status == 13


def test_a_bug_in_the_data_plane_is_an_internal_error():
    wire = Wire()
    assert wire.call(infer_request(model="raises")).status == 13
    assert wire.call(infer_request()).status == 0


def test_a_restricted_part_is_for_those_with_the_header():
    keys = {"inference": ("key", "secret")}
    limits = GrpcLimits(restrictions=Restrictions(keys, "protocol", "triton-grpc-protocol-"))
    for more, status in ({}, 14), ({"triton-grpc-protocol-key": "secret"}, 0):
        wire = Wire(limits=limits)
        reply = wire.call(infer_request(), **more)
        assert reply.status == status
        expected = "This protocol is restricted, expecting header 'triton-grpc-protocol-key'"
        assert reply.text == (expected if status else "")

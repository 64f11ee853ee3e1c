"""Bytes of the wire: any split, garbage, hostile frames, malformed requests."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.grpc.wire import (
    HELLO,
    INFER,
    STREAM,
    Raw,
    block,
    call_bytes,
    data_frame,
    frame,
    frame_head,
    framed,
    headers,
    indexed,
    infer_request,
)
from tuili.server.grpc import frames

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
        (HELLO + frame_head(frames.HEADERS, 4 | 8, 1, 70_000), S),
        (HELLO + frame_head(frames.GOAWAY, 0, 0, 70_000), S),
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
            HELLO + headers(1, b"", 0) + frame(frames.CONTINUATION, 0, 1, bytes(30_000)) * 9,
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
        (HELLO + headers(1, block() + indexed(b"b", b"a" * 4000) + b"\xbe" * 10_000), CALM),
        (HELLO + headers(1, block() + b"\x82" * 20_000), CALM),
        (HELLO + headers(1, b"\x20\x20\x20" + block()), X),
        (HELLO + headers(1, b"\x3f\xff\x7f" + block()), X),
        (HELLO + headers(1, b"\0\x7f\xff\xff\x7f"), CALM),
        # A value of a gigabyte, of which eight megabytes come.
        (
            HELLO
            + headers(1, block() + b"\0\1a\x7f\x81\xff\xff\xff\3", 0)
            + frame(frames.CONTINUATION, 0, 1, bytes(1 << 20)) * 9,
            CALM,
        ),
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
    assert raw.left


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
        block(INFER, (b"te", b"trailers, deflate")),
        block(INFER, (b"content-length", b"-1")),
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


@pytest.mark.parametrize("path", [INFER, STREAM])
@pytest.mark.parametrize("excess", [-1, 0, 1])
@pytest.mark.parametrize("cut", [1, 40])
def test_a_call_whose_data_is_not_as_long_as_it_says_is_reset(path: str, excess: int, cut: int):
    data = framed(infer_request())
    length = (b"content-length", b"%d" % (len(data) + excess))
    raw = Raw()
    for number in (1, 3):
        raw.feed(HELLO[: len(HELLO) * (number == 1)] + headers(number, block(path, length)))
        raw.feed(data_frame(number, data[:cut], 0) + data_frame(number, data[cut:]))
    reset = [number for kind, _, number, _ in raw.frames() if kind == frames.RST_STREAM]
    assert reset == ([1, 3] if excess else [])
    assert raw.goaway() is None


@pytest.mark.parametrize(("kind", "most"), [(frames.DATA, 1 << 20), (frames.PING, 1 << 16)])
def test_a_client_hears_how_long_a_frame_may_be(kind: int, most: int):
    raw = Raw()
    raw.feed(HELLO + frame_head(kind, 4, 1, most + 1))
    assert f"frame of {most + 1} bytes, where {most} are the most".encode() in raw.transport.sent

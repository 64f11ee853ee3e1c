"""Calls that look like the one before them are taken by one comparison, and mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.server.grpc.wire import (
    HELLO,
    INFER,
    SERVICE,
    Raw,
    block,
    call_bytes,
    data_frame,
    framed,
    headers,
    indexed,
    infer_request,
)
from tuili.server.grpc import frames
from tuili.server.grpc.frames import literal

FIRST_OF_TABLE = b"\xbe"  # RFC 7541 section 6.1: index 62


def call(number: int, value: float, of: bytes = block()) -> bytes:
    array = np.full(4, value, np.float32)
    return headers(number, of) + data_frame(number, framed(infer_request(array)))


CALLS = b"".join([*(call(number, number) for number in (1, 3, 5, 7)), call_bytes(9), call(11, 11)])


def whole() -> bytes:
    raw = Raw()
    raw.feed(HELLO + CALLS)
    return bytes(raw.transport.sent)


def test_every_call_gets_its_own_answer():
    raw = Raw()
    raw.feed(HELLO + CALLS)
    answers = {number: data for kind, _, number, data in raw.frames() if kind == frames.DATA}
    for number in (1, 3, 5, 7, 11):
        assert answers[number].endswith(np.full(4, number, np.float32).tobytes())
    assert list(answers) == [1, 3, 5, 7, 9, 11]


def test_calls_mean_the_same_wherever_the_network_cuts_them():
    expected = whole()
    for cut in range(1, len(CALLS)):
        raw = Raw()
        for piece in (HELLO, CALLS[:cut], CALLS[cut:]):
            raw.feed(piece)
        assert bytes(raw.transport.sent) == expected


def test_a_block_means_what_the_table_says_now():
    raw = Raw()
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b"content-type", b"application/grpc")]
    rest = b"".join(literal(name, value) for name, value in fields)
    infer, live = (indexed(b":path", path.encode()) for path in (INFER, SERVICE + "ServerLive"))
    again = FIRST_OF_TABLE + rest
    raw.feed(HELLO + call(1, 1, infer + rest) + call(3, 3, again) + call(5, 5, again))
    raw.feed(headers(7, live + rest) + data_frame(7, framed(b"")))
    # The same bytes ask for something else now, which such a message does not fit.
    raw.feed(call(9, 9, again))
    answers = {number: data for kind, _, number, data in raw.frames() if kind == frames.DATA}
    assert [*answers] == [1, 3, 5, 7, 9]
    assert answers[5].endswith(np.full(4, 5, np.float32).tobytes())
    assert answers[9] == answers[7] == framed(b"\x08\x01")


@pytest.mark.parametrize("number", [4, 3, 1])
def test_a_stream_that_cannot_be_opened_ends_the_connection(number: int):
    raw = Raw()
    raw.feed(HELLO + call(1, 1) + call(3, 3) + call(number, 0))
    assert raw.goaway() in (frames.PROTOCOL_ERROR, frames.STREAM_CLOSED)


def test_only_what_windows_count_is_counted():
    raw = Raw()
    raw.feed(HELLO + call(1, 1))
    once = raw.connection.credit.unacked
    raw.feed(call(3, 3))
    assert raw.connection.credit.unacked == 2 * once == 2 * len(framed(infer_request()))

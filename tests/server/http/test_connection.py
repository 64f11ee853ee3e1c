from __future__ import annotations

import socket
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.http.wire import Wire, binary_infer, request
from tuili.server.http.limits import HttpLimits
from tuili.server.protocol.restrictions import Restrictions

FP32 = np.arange(16, dtype=np.float32)
TENSOR = {
    "name": "INPUT", "datatype": "FP32", "shape": [1, 16],
    "parameters": {"binary_data_size": 64},
}  # fmt: skip
INFER = binary_infer(
    {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}, FP32.tobytes()
)
JSON_TEXT = b'{"inputs": [{"name":"INPUT","datatype":"INT32","shape":[2],"data":[1,2]}]}'
CHUNKED = (
    b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1a\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
) % (JSON_TEXT[:26], len(JSON_TEXT) - 26, JSON_TEXT[26:])
LIVE = request("GET", "/v2/health/live")
MISSING = request("GET", "/nothing")
BIG = np.arange(50_000, dtype=np.float32)
BIG_INFER = binary_infer(
    {
        "inputs": [
            {
                "name": "INPUT", "datatype": "FP32", "shape": [50_000],
                "parameters": {"binary_data_size": 200_000},
            }
        ]
    },
    BIG.tobytes(),
)  # fmt: skip


def statuses(wire: Wire) -> list[int]:
    return [answer.status for answer in wire.answers()]


def test_pipelined_requests_are_answered_in_order():
    wire = Wire()
    wire.feed(INFER + LIVE + MISSING + CHUNKED + INFER)
    assert statuses(wire) == [200, 200, 404, 200, 200]
    first = wire.answers()[0]
    assert first.body.endswith(FP32.tobytes())
    assert wire.answers()[3].json["outputs"][0]["data"] == [1, 2]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_split_of_the_bytes_gives_the_same_answers(data: st.DataObject):
    stream = b"\r\n" + INFER + CHUNKED + LIVE + INFER + MISSING
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    whole, pieces = Wire(), Wire()
    whole.feed(stream)
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(edges):
        pieces.feed(stream[start:end])
    assert len(whole.answers()) == 5
    assert pieces.transport.sent == whole.transport.sent


def test_a_length_beside_chunks_means_nothing_and_is_the_last_of_its_connection_where_allowed():
    both = CHUNKED.replace(b"Host: a", b"Host: a\r\nContent-Length: 3", 1)
    wire = Wire(HttpLimits(length_beside_chunks=True))
    wire.feed(both + LIVE)
    (answer,) = wire.answers()
    assert answer.json["outputs"][0]["data"] == [1, 2]
    assert b"Connection: close" in wire.transport.sent


def test_a_request_without_host_is_answered_where_allowed():
    bare = LIVE.replace(b"Host: test\r\n", b"", 1)
    assert bare != LIVE
    for allowed, status in ((True, 200), (False, 400)):
        wire = Wire(HttpLimits(host_optional=allowed))
        wire.feed(bare)
        assert statuses(wire) == [status]


def test_byte_by_byte_works():
    wire = Wire()
    for byte in INFER + CHUNKED:
        wire.feed(bytes([byte]))
    assert statuses(wire) == [200, 200]


@settings(deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", INFER[:90], CHUNKED[:80], b"POST / HTTP/1.1\r\n"]),
)
def test_garbage_never_crashes_and_is_answered_once_at_most(garbage: bytes, start: bytes):
    wire = Wire()
    wire.feed(start + garbage + b"\r\n\r\n")
    for answer in wire.answers():
        assert answer.status >= 400 or answer.status == 200


def test_a_large_body_arrives_in_place():
    wire = Wire()
    wire.feed(BIG_INFER)
    data = wire.dataplane.requests[0].inputs[0].data
    np.testing.assert_array_equal(data, BIG)
    assert data.ctypes.data % 64 == 0
    # The second request may not write where the first one's tensor still lives.
    wire.feed(BIG_INFER.replace(BIG.tobytes(), (BIG + 1).tobytes()))
    np.testing.assert_array_equal(data, BIG)
    np.testing.assert_array_equal(wire.dataplane.requests[1].inputs[0].data, BIG + 1)


def test_a_buffer_nobody_reads_is_used_again():
    wire = Wire()
    wire.dataplane.keep_requests = False
    seen = set()
    for _ in range(4):
        wire.feed(BIG_INFER[:1000])
        seen.add(np.frombuffer(wire.connection.get_buffer(-1), np.uint8).ctypes.data)
        wire.feed(BIG_INFER[1000:])
        wire.transport.sent.clear()
    assert len(seen) == 1


def test_requests_wait_for_the_one_under_way():
    wire = Wire()
    wire.feed(INFER.replace(b"identity", b"held") + LIVE)
    assert statuses(wire) == []
    wire.feed(MISSING)
    wire.dataplane.release()
    assert statuses(wire) == [200, 200, 404]


def test_too_much_pipelining_pauses_reading():
    wire = Wire()
    wire.feed(INFER.replace(b"identity", b"held"))
    while wire.transport.reading:
        wire.feed(LIVE * 500)
    wire.dataplane.release()
    assert wire.transport.reading
    assert set(statuses(wire)) == {200}


def test_a_slow_reader_gets_no_more_answers_until_it_reads():
    wire = Wire()
    wire.connection.pause_writing()
    wire.feed(LIVE)
    assert statuses(wire) == []
    wire.connection.resume_writing()
    assert statuses(wire) == [200]


def test_a_client_that_sends_and_does_not_read_is_not_listened_to():
    wire = Wire()
    wire.connection.pause_writing()
    while wire.transport.reading:
        wire.feed(LIVE * 500)
    assert len(wire.connection._tail) < 400_000
    wire.connection.resume_writing()
    assert wire.transport.reading
    assert set(statuses(wire)) == {200}


def test_a_client_that_goes_cancels_its_request():
    wire = Wire()
    wire.feed(INFER.replace(b"identity", b"held"))
    ((ticket, _, reply),) = wire.dataplane.held
    wire.connection.connection_lost(None)
    assert ticket.cancelled
    reply(wire.dataplane._echo(wire.dataplane.requests[0]))  # too late: goes nowhere
    assert statuses(wire) == []


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (b"GARBAGE\r\n\r\n", 400, "request line"),
        (INFER.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"), 400, "both"),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431, "too large"),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", 413, "exceeds"),
        (CHUNKED.replace(b"1a\r\n", b"zz\r\n"), 400, "chunk size"),
    ],
)
def test_what_cannot_be_trusted_is_refused_and_the_connection_ends(
    data: bytes, status: int, text: str
):
    wire = Wire(HttpLimits(max_body_bytes=1_000_000))
    wire.feed(data + LIVE)
    (answer,) = wire.answers()
    assert answer.status == status
    assert text in answer.error
    assert answer.headers["connection"] == "close"
    assert wire.transport.eof or wire.transport.closed


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "found TLS, expected HTTP/1.1",
        ),
        (b"\0\0\0\x18", "request line"),
        (b"{", "request line"),
    ],
)
def test_what_can_never_become_a_request_is_refused_at_its_first_byte(data: bytes, text: str):
    wire = Wire()
    wire.feed(data)
    (answer,) = wire.answers()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert text in answer.error


def test_a_refused_client_is_listened_to_for_a_moment_only():
    wire = Wire()
    wire.feed(b"GARBAGE\r\n\r\n")
    wire.feed(b"more" * 1000)
    wire.listener.connections.tick(1.0)
    assert not wire.transport.aborted
    wire.listener.connections.tick(3.0)
    assert wire.transport.aborted


def test_connection_close_is_obeyed():
    wire = Wire()
    answer = wire.answer(INFER.replace(b"Host", b"Connection: close\r\nHost"))
    assert answer.headers["connection"] == "close"
    assert answer.body.endswith(FP32.tobytes()) or answer.status == 200
    assert wire.transport.closed


def test_a_body_is_asked_for():
    wire = Wire()
    head, _, body = INFER.replace(b"Host", b"Expect: 100-continue\r\nHost").partition(b"\r\n\r\n")
    wire.feed(head + b"\r\n\r\n")
    assert wire.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.feed(body)
    assert statuses(wire) == [100, 200]


@pytest.mark.parametrize(
    ("line", "status"),
    [(b"POST /v2/nowhere", 404), (b"POST /v2/health/live", 405), (b"POST /v2/logging", 403)],
)
def test_a_body_is_not_asked_for_where_the_head_is_refused(line: bytes, status: int):
    wire = Wire(HttpLimits(restrictions=Restrictions({"logging": ("key", "secret")})))
    wire.feed(line + b" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
    wire.feed(b"GET / HTT")
    (answer,) = wire.answers()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert wire.transport.eof
    assert not wire.transport.closed


def test_an_old_client_is_answered_and_let_go():
    wire = Wire()
    answer = wire.answer(b"GET /v2 HTTP/1.0\r\n\r\n")
    assert answer.status == 200
    assert wire.transport.closed


def test_an_old_client_may_stay_when_it_says_so():
    wire = Wire()
    old = INFER.replace(b"HTTP/1.1", b"HTTP/1.0").replace(
        b"Host", b"Connection: keep-alive\r\nHost"
    )
    for data in (old, b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"):
        assert wire.answer(data).headers["connection"] == "keep-alive"
    assert not wire.transport.closed


def test_an_old_client_gets_a_stream_that_ends_with_the_connection():
    wire = Wire()
    data = request("POST", "/v2/models/repeat/generate_stream", {"IN": 2})
    wire.feed(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = bytes(wire.transport.sent).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body.count(b"data: ") == 2
    assert body.endswith(b"}\n\n")
    assert wire.transport.closed


def test_a_stream_that_nobody_reads_is_cut():
    wire = Wire(HttpLimits(max_backlog_bytes=100))
    data = request("POST", "/v2/models/repeat/generate_stream", {"IN": 3})
    wire.feed(data[:-1])
    wire.connection.pause_writing()
    wire.transport.unsent = 101
    wire.feed(data[-1:])
    assert wire.transport.aborted


def test_head_has_no_body():
    wire = Wire()
    wire.feed(b"HEAD /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
    (answer,) = wire.answers(heads=True)
    assert answer.status == 405
    assert not wire.transport.sent.endswith(b"}")


@pytest.mark.parametrize(
    ("data", "seconds", "status"),
    [
        (b"", 20, None),
        (b"GET /v2 HTTP/1.1\r\n", 20, 408),
        (INFER[:-1], 3600, 408),
        (CHUNKED[:-4], 7200, 408),
        (LIVE, 100, None),
    ],
)
def test_what_takes_too_long_ends(data: bytes, seconds: float, status: int | None):
    wire = Wire()
    wire.feed(data)
    before = len(wire.answers())
    wire.listener.connections.tick(0.5)
    assert not wire.transport.closed
    wire.listener.connections.tick(seconds)
    late = wire.answers()[before:]
    assert [answer.status for answer in late] == ([] if status is None else [status])
    wire.listener.connections.tick(seconds + 10)
    assert wire.transport.closed


def test_a_request_under_way_is_not_timed_out_here():
    wire = Wire()
    wire.feed(INFER.replace(b"identity", b"held"))
    wire.listener.connections.tick(1e6)
    assert not wire.transport.closed


def test_a_client_that_never_reads_is_cut_and_a_slow_one_is_not():
    wire = Wire()
    wire.connection.pause_writing()
    for second, unsent in ((61, 5000), (122, 4000), (183, 3000)):
        wire.transport.unsent = unsent
        wire.listener.connections.tick(float(second))
        assert not wire.transport.aborted
    wire.listener.connections.tick(244.0)
    assert wire.transport.aborted


def test_a_request_that_crosses_with_the_end_is_answered():
    wire = Wire()
    wire.listener.connections.drain()
    wire.feed(INFER)
    (answer,) = wire.answers()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert wire.transport.closed


def test_an_idle_client_whose_request_lies_unread_stays():
    wire = Wire()
    here, there = socket.socketpair()
    with here, there:
        wire.transport.socket = here
        wire.listener.connections.tick(0.0)
        there.send(b"GET /v2 HTTP/1.1\r\n")
        wire.listener.connections.tick(1e9)
        assert not wire.transport.closed
        here.recv(100)
        wire.listener.connections.tick(2e9)
        assert wire.transport.closed


def test_how_long_an_idle_client_may_stay_when_the_server_ends():
    idle = Wire(limits=HttpLimits(parting_s=10.0))
    idle.listener.connections.drain()
    for now, closed in ((0.5, False), (9.5, False), (10.0, True)):
        idle.listener.connections.tick(now)
        assert idle.transport.closed == closed


def test_draining_answers_and_closes():
    busy, idle = Wire(), Wire()
    busy.feed(INFER.replace(b"identity", b"held"))
    busy.listener.connections.drain()
    idle.listener.connections.drain()
    for wire in (idle, busy):
        assert not wire.transport.closed
        wire.listener.connections.tick(0.5)
    assert idle.transport.closed
    assert not busy.transport.closed
    busy.dataplane.release()
    (answer,) = busy.answers()
    assert answer.headers["connection"] == "close"
    assert busy.transport.closed


def test_an_answer_that_cannot_be_written_is_a_500():
    answer = Wire().answer(INFER.replace(b"identity", b"unwritable"))
    assert (answer.status, "internal error" in answer.error) == (500, True)


def test_a_bug_in_the_data_plane_is_a_500_and_the_server_lives():
    wire = Wire()
    answer = wire.answer(INFER.replace(b"identity", b"raises"))
    assert (answer.status, "internal error" in answer.error) == (500, True)
    assert wire.call("GET", "/v2/health/live").status == 200

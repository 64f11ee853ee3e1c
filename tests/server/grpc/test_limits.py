"""What a connection may take and keep, silent and slow clients, and the end of a server."""

from __future__ import annotations

import pytest

from tests.server.grpc.wire import (
    BIG,
    HELLO,
    INFER,
    STREAM,
    Raw,
    Wire,
    block,
    call_bytes,
    data_frame,
    frame,
    framed,
    headers,
    infer_request,
    told,
)
from tuili.server.grpc import frames
from tuili.server.grpc.limits import GrpcLimits


def test_streams_above_the_limit_are_refused():
    raw = Raw(GrpcLimits(max_streams=2))
    raw.feed(HELLO + call_bytes(1, "held") + call_bytes(3, "held") + call_bytes(5))
    assert (frames.RST_STREAM, 0, 5, frames.REFUSED_STREAM.to_bytes(4, "big")) in raw.frames()


def test_data_beyond_our_window_ends_the_connection():
    raw = Raw(GrpcLimits(stream_window=70_000, connection_window=100_000))
    # The service is choked only by streams; here the client ignores what it was granted.
    raw.connection.credit.unacked = 99_999
    raw.feed(HELLO + headers(1, block()) + data_frame(1, bytes(10), 0))
    assert raw.goaway() == frames.FLOW_CONTROL_ERROR


def test_a_window_that_overflows_resets_its_stream():
    raw = Raw()
    raw.feed(HELLO + call_bytes(1, "held") + frames.window_update_frame(1, (1 << 31) - 1))
    assert (frames.RST_STREAM, 0, 1, frames.FLOW_CONTROL_ERROR.to_bytes(4, "big")) in raw.frames()
    assert raw.dataplane.held[0][0].cancelled


def test_a_busy_client_may_send_many_control_frames():
    raw = Raw()
    raw.feed(HELLO)
    for number in range(1, 2000, 2):
        updates = frames.window_update_frame(0, 1000) * 4 + frame(frames.PING, 0, 0, bytes(8)) * 4
        raw.feed(call_bytes(number) + updates)
    assert raw.goaway() is None


def test_a_proxy_that_opens_its_windows_by_crumbs_gets_large_answers():
    """As HAProxy 2.6 does: 16,320 bytes of every 16 KiB, then 64, on both windows."""
    raw = Raw(GrpcLimits(max_control_frames=20))
    raw.feed(HELLO + call_bytes(1, array=BIG))
    opened = b"".join(
        frames.window_update_frame(number, size) for size in (16_320, 64) for number in (0, 1)
    )
    for _ in range(BIG.nbytes >> 14):
        raw.feed(opened)
    assert raw.goaway() is None
    assert not raw.connection.outgoing.waiting
    sent = [payload for kind, _, _, payload in raw.frames() if kind == frames.DATA]
    assert sum(map(len, sent)) > BIG.nbytes


def test_windows_that_one_read_opens_let_one_frame_of_data_out():
    raw = Raw()
    raw.feed(HELLO + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}))
    raw.feed(call_bytes(1, array=BIG))
    raw.feed(frames.window_update_frame(1, 100) * 50)
    assert [len(payload) for kind, _, _, payload in raw.frames() if kind == frames.DATA] == [5000]


@pytest.mark.parametrize("number", [0, 1, 3])  # 3 is answered: data was sent, and not enough
def test_windows_that_are_opened_by_crumbs_for_nothing_end_the_connection(number: int):
    raw = Raw(GrpcLimits(max_control_frames=20))
    raw.feed(HELLO + call_bytes(1, "held") + call_bytes(3, array=BIG[:10_000]))
    raw.feed(frames.window_update_frame(number, 1) * 20)
    assert raw.goaway() is None
    raw.feed(frames.window_update_frame(number, 1) * 20)
    assert raw.goaway() == frames.ENHANCE_YOUR_CALM


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
    assert not raw.left
    raw.listener.connections.tick(20.0)
    assert raw.transport.aborted


def test_an_idle_connection_may_stay():
    raw = Raw()
    raw.feed(HELLO + call_bytes(1))
    raw.listener.connections.tick(1e6)
    assert not raw.left


def test_a_message_that_never_ends_is_given_up():
    raw = Raw()
    raw.feed(HELLO + headers(1, block()) + data_frame(1, framed(infer_request())[:9], 0))
    raw.listener.connections.tick(59.0)
    assert raw.connection._streams
    raw.listener.connections.tick(61.0)
    assert not raw.connection._streams
    assert not raw.left


def test_messages_of_an_old_stream_have_the_time_of_others():
    raw, message = Raw(), framed(infer_request())
    raw.feed(HELLO + headers(1, block(path=STREAM)))
    for second in range(100, 1100, 100):
        raw.listener.connections.tick(float(second))
        raw.feed(data_frame(1, message[:9], 0))
        raw.listener.connections.tick(second + 50.0)
        assert raw.connection._streams
        raw.feed(data_frame(1, message[9:], 0))
    assert len(raw.dataplane.requests) == 10


def test_a_large_message_may_take_longer_than_a_small_one():
    raw = Raw(GrpcLimits(min_message_rate=1000.0))
    raw.feed(HELLO + headers(1, block()) + data_frame(1, framed(bytes(100_000))[:9], 0))
    raw.listener.connections.tick(159.0)
    assert raw.connection._streams
    raw.listener.connections.tick(161.0)
    assert not raw.connection._streams


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


def test_who_does_not_read_gets_no_more_answers():
    raw = Raw(GrpcLimits(max_waiting_bytes=100, connection_window=200_000))
    raw.feed(HELLO + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}))
    requests = raw.dataplane.requests
    for number in (1, 3, 5, 7, 9):  # small answers: two are more than a hundred bytes
        raw.feed(call_bytes(number))
    assert len(requests) == 2
    raw.feed(frames.rst_frame(7, frames.CANCEL) + headers(11, block()))
    raw.feed(data_frame(11, framed(infer_request(BIG[:30_000]))))
    given_back = frames.window_update_frame(0, raw.connection.credit.unacked)
    assert given_back not in bytes(raw.transport.sent)
    raw.feed(frames.window_update_frame(1, 1000))
    assert len(requests) == 3
    assert given_back not in bytes(raw.transport.sent)
    raw.feed(b"".join(frames.window_update_frame(number, 1000) for number in (3, 5, 9)))
    assert len(requests) == 5
    assert [request.inputs[0].data.size for request in requests] == [4, 4, 4, 4, 30_000]
    raw.feed(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 1 << 20}))
    assert raw.connection.outgoing.waiting_bytes > 0  # the connection's window holds it back
    raw.feed(frames.window_update_frame(0, 1 << 20))
    assert given_back in bytes(raw.transport.sent)
    assert raw.connection.outgoing.waiting_bytes == 0


def test_what_waited_for_a_client_that_went_is_forgotten():
    raw = Raw(GrpcLimits(max_waiting_bytes=100))
    raw.feed(HELLO + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}))
    for number in (1, 3, 5):
        raw.feed(call_bytes(number))
    raw.feed(frames.rst_frame(1, frames.CANCEL))
    assert len(raw.dataplane.requests) == 3
    raw.connection.connection_lost(None)
    assert raw.connection.outgoing.waiting_bytes == 0


def test_draining_finishes_what_is_under_way():
    raw = Raw()  # the `h2` client takes any GOAWAY for the end
    raw.feed(HELLO + call_bytes(1, "held"))
    raw.listener.connections.drain()
    assert (raw.goaway(), raw.left) == (0, False)
    raw.feed(told(raw))
    raw.dataplane.release()
    kinds = [(kind, number) for kind, _, number, _ in raw.frames()]
    answered = [(frames.HEADERS, 1), (frames.DATA, 1), (frames.HEADERS, 1), (frames.GOAWAY, 0)]
    assert kinds[-4:] == answered
    assert raw.left


def test_draining_closes_idle_connections_that_know_of_it():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    assert (raw.goaway(), raw.left) == (0, False)
    raw.feed(told(raw))
    assert raw.left


def test_a_call_that_crosses_the_goaway_is_answered():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    raw.feed(call_bytes(1, "held") + told(raw))
    assert not raw.left
    raw.dataplane.release()
    assert (frames.DATA, 1) in [(kind, number) for kind, _, number, _ in raw.frames()]
    assert raw.left


def test_a_client_that_is_left_is_listened_to_for_a_moment_since_a_reset_overtakes_answers():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    raw.feed(told(raw))
    assert raw.transport.eof
    raw.feed(call_bytes(1))
    assert not raw.dataplane.requests
    raw.listener.connections.tick(1.0)
    assert not raw.transport.closed
    raw.listener.connections.tick(3.0)
    assert raw.transport.closed


def test_a_client_that_does_not_answer_counts_as_told():
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.drain()
    raw.listener.connections.tick(1.0)
    assert not raw.left
    raw.listener.connections.tick(2.0)
    assert raw.left


@pytest.mark.parametrize(
    ("sent", "late"),
    [(b"", "the message"), (data_frame(1, framed(infer_request()), 0), "the end of the call")],
    ids=["nothing", "a message"],
)
def test_a_unary_call_that_is_never_ended_is_given_up(sent: bytes, late: str):
    raw = Raw()
    raw.feed(HELLO)
    raw.listener.connections.tick(100.0)
    raw.feed(headers(1, block()) + sent)
    raw.listener.connections.tick(150.0)
    assert raw.connection._streams
    raw.listener.connections.tick(161.0)
    assert not raw.connection._streams
    assert f"{late} took too long".encode() in bytes(raw.transport.sent)
    assert (frames.RST_STREAM, 0, 1, bytes(4)) in raw.frames()


@pytest.mark.parametrize("path", [INFER, STREAM])
@pytest.mark.parametrize("pieces", [1, 3])
def test_metadata_that_is_too_large_ends_its_call_only(path: str, pieces: int):
    wire = Wire()
    big = {f"x-big-{number}": "v" * (70_000 // pieces) for number in range(pieces)}
    refused = wire.open(path, **big)
    wire.sync()
    reply = wire.replies[refused]
    assert (reply.status, reply.ended, wire.goaways) == (8, True, [])
    assert "above the limit of 65536" in reply.text
    # What the block did to the compression's table holds for the next call.
    assert wire.call(infer_request()).infer().model_name == "identity"
    assert wire.call(infer_request()).infer().model_name == "identity"


def test_a_long_frame_of_metadata_is_read_as_it_comes():
    """Nothing of what is too large is kept, nor is there one more way to keep a frame."""
    raw = Raw()
    text = headers(1, block(INFER, (b"x", bytes(900_000))))
    raw.feed(HELLO + text[:-1])
    assert len(raw.connection._tail) < 100
    raw.feed(text[-1:] + call_bytes(3))
    assert raw.goaway() is None
    assert [number for kind, _, number, _ in raw.frames() if kind == frames.DATA] == [3]


def test_metadata_beyond_all_measure_ends_the_connection():
    raw = Raw(GrpcLimits(max_header_bytes=1000, most_header_bytes=4000))
    raw.feed(HELLO + headers(1, block(INFER, *[(b"x-%d" % n, bytes(990)) for n in range(5)])))
    assert raw.goaway() == frames.ENHANCE_YOUR_CALM

"""What requests under way hold in all is bounded, and who takes longest gives way."""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.server.grpc import wire as grpc_wire
from tests.server.grpc.wire import HELLO, INFER, STREAM, Raw, block, data_frame, framed, headers
from tests.server.http.wire import Wire
from tests.server.running import running
from tuili.errors import Overloaded, TooLarge
from tuili.server import grpc as native_grpc
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.http.limits import HttpLimits
from tuili.server.listening import Address
from tuili.server.options import ServerOptions
from tuili.server.room import Room, room_of

MIB = 1 << 20
INFERENCE = b"POST /v2/models/%b/infer HTTP/1.1\r\nHost: a\r\n"


def told(names: list[str], name: str) -> Callable[[object], None]:
    return lambda _: names.append(name)


def test_the_oldest_gives_way_until_there_is_room():
    room, gone = Room(100), []
    for name, size in (("a", 40), ("b", 30), ("a", 10), ("c", 50)):
        room.grow(name, size, told(gone, name))
    assert (gone, room.held_bytes, room.gave_way) == (["a"], 80, 1)
    room.grow("d", 70, told(gone, "d"))
    assert (gone, room.held_bytes) == (["a", "b", "c"], 70)


def test_what_is_whole_stays_and_whoever_comes_beside_it_does_not():
    room, gone = Room(100), []
    room.grow("a", 60, told(gone, "a"))
    room.settle("a", 30)
    room.grow("b", 20, told(gone, "b"))
    assert (gone, room.held_bytes) == (["b"], 90)
    room.leave("a")
    room.leave("a")
    assert room.held_bytes == 0


def test_one_that_is_larger_than_all_gives_way_itself():
    room, gone = Room(100), []
    room.weigh("a", 60, told(gone, "a"))
    room.weigh("a", 50, told(gone, "a"))
    assert (gone, room.held_bytes) == ([], 50)
    room.weigh("a", 101, told(gone, "a"))
    assert (gone, room.held_bytes) == (["a"], 0)
    room.weigh("b", 10, told(gone, "b"))
    room.weigh("b", 0, told(gone, "b"))
    assert room.held_bytes == 0


def test_the_metrics_tell_what_is_held_and_who_gave_way():
    room = Room(100)
    room.grow("a", 101, told([], "a"))
    room.grow("b", 7, told([], "b"))
    assert "tuili_request_memory_bytes 7" in room.lines()
    assert "tuili_requests_gave_way 1" in room.lines()


@pytest.mark.parametrize(("front_ends", "most"), [(1, 64 * MIB), (4, 16 * MIB)])
def test_processes_share_what_there_is(front_ends: int, most: int, tmp_path: Any):
    options = ServerOptions((tmp_path,), request_memory_bytes=64 * MIB, frontends=front_ends)
    assert room_of(options).most_bytes == most


def test_what_is_taken_finds_free_room_or_is_refused_and_nobody_gives_way_for_it():
    room, gone = Room(100), []
    room.grow("a", 60, told(gone, "a"))
    room.take("b", 30)
    with pytest.raises(Overloaded, match="try again later"):
        room.take("b", 11)
    with pytest.raises(TooLarge, match="100 bytes"):
        room.take("c", 101)
    assert (gone, room.held_bytes, room.gave_way) == ([], 90, 2)
    room.take("a", 10)  # what is unpacked of "a" keeps all of it from giving way
    room.grow("d", 1, told(gone, "d"))
    assert gone == ["d"]
    for name in ("a", "b", "c", "d"):
        room.leave(name)
    assert room.held_bytes == 0


# HTTP ----------------------------------------------------------------------------------------


def http(most: int = MIB) -> tuple[Room, Wire]:
    room = Room(most)
    return room, Wire(HttpLimits(room=room))


def sized(size: int, model: bytes = b"identity") -> bytes:
    return INFERENCE % model + b"Content-Length: %d\r\n\r\n" % size


CHUNKED = INFERENCE % b"identity" + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "start", [sized(700_000), CHUNKED + b"aae60\r\n"], ids=["sized", "chunked"]
)
def test_of_uploads_that_never_end_the_first_ones_are_refused(start: bytes):
    room, first = http()
    second = Wire(beside=first)
    for wire in (first, second):
        wire.feed(start + b" " * 600_000)
    (answer,) = first.answers()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "--request-memory-mb" in answer.error
    assert not second.transport.sent
    assert 600_000 <= room.held_bytes < 601_000
    first.feed(b" " * 100_000)  # is thrown away
    assert 600_000 <= room.held_bytes < 601_000
    second.connection.connection_lost(None)
    assert room.held_bytes == 0


def test_a_body_that_is_whole_takes_room_until_it_is_answered():
    room, wire = http()
    wire.feed(sized(700_000))
    wire.feed(b" " * 700_000)
    assert wire.status == 400  # which is an answer
    assert room.held_bytes == 0


def test_a_request_under_way_takes_room_and_is_not_refused_for_it():
    room, first = http()
    tensor = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1.0]}]}'
    first.feed(sized(700_000, b"held"))
    first.feed(tensor + b" " * (700_000 - len(tensor)))
    second = Wire(beside=first)
    second.feed(sized(700_000))
    second.feed(b" " * 600_000)
    assert (second.status, first.transport.sent) == (503, b"")
    assert room.held_bytes == 700_000
    first.connection.connection_lost(None)
    assert room.held_bytes == 0


def test_a_body_that_there_is_never_room_for_is_refused_at_once():
    _, wire = http()
    wire.feed(sized(MIB + 1))
    (answer,) = wire.answers()
    assert answer.status == 413
    assert f"maximum allowed input size of {MIB} bytes" in answer.error


def test_clients_that_do_not_read_their_answers_are_cut_the_first_one_first():
    room, first = http()
    second = Wire(beside=first)
    for wire in (first, second):
        wire.transport.unsent = 600_000
        wire.connection.pause_writing()
    assert (first.transport.aborted, second.transport.aborted) == (True, False)
    second.connection.resume_writing()
    assert room.held_bytes == 0


SQUEEZE = {"gzip": partial(gzip.compress, mtime=0), "deflate": zlib.compress}
CODINGS = pytest.mark.parametrize("coding", SQUEEZE)


def packed(coding: str, data: bytes, model: bytes = b"identity") -> bytes:
    body = SQUEEZE[coding](data)
    head = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body))
    return INFERENCE % model + head + body


@CODINGS
@pytest.mark.parametrize(("others", "status"), [(0, 413), (600_000, 503)])
def test_a_body_is_unpacked_as_far_as_there_is_room(coding: str, others: int, status: int):
    room, first = http()
    first.feed(sized(700_000) + b" " * others)
    second = Wire(beside=first)
    second.feed(packed(coding, bytes(20 * MIB)))
    (answer,) = second.answers()
    assert (answer.status, "--request-memory-mb" in answer.error) == (status, True)
    assert answer.headers.get("retry-after") == ("1" if others else None)
    assert (first.transport.sent, room.held_bytes) == (b"", others)
    assert second.answer(packed(coding, b"{}")).status == 400  # small ones need none


def test_an_unpacked_body_takes_room_until_it_is_answered():
    room, wire = http()
    tensor = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1.0]}]}'
    wire.feed(packed("gzip", tensor + b" " * 700_000, b"held"))
    assert 600_000 < room.held_bytes < 800_000
    wire.connection.connection_lost(None)
    assert room.held_bytes == 0


def test_who_sends_much_packed_in_little_has_turns_like_the_others():
    _, wire = http(64 * MIB)
    paused = []
    wire.transport.pause_reading = lambda: paused.append(True)
    wire.connection._connections.loop = asyncio.new_event_loop()
    for _ in range(7):
        wire.feed(packed("gzip", bytes(240_000)))
    wire.connection._connections.loop.close()
    assert paused


# gRPC ----------------------------------------------------------------------------------------


def grpc(most: int = MIB) -> tuple[Room, Raw]:
    room = Room(most)
    raw = Raw(GrpcLimits(room=room))
    raw.feed(HELLO)
    return room, raw


def upload(number: int, have: int, path: str = INFER) -> bytes:
    """The start of a message of 700,000 bytes."""
    start = b"\0" + struct.pack(">I", 700_000)
    frame = data_frame(number, start + bytes(have), 0)
    return headers(number, block(path)) + frame


@pytest.mark.parametrize("path", [INFER, STREAM])
def test_of_messages_that_never_end_the_first_ones_are_refused(path: str):
    room, raw = grpc()
    other = Raw(beside=raw)
    other.feed(HELLO)
    raw.feed(upload(1, 600_000, path))
    other.feed(upload(1, 600_000, path))
    assert b"--request-memory-mb" in raw.transport.sent
    assert b"--request-memory-mb" not in other.transport.sent
    assert 600_000 <= room.held_bytes < 601_000
    other.connection.connection_lost(None)
    assert room.held_bytes == 0


def test_a_call_takes_room_until_it_is_answered():
    room, raw = grpc()
    message = framed(grpc_wire.infer_request(grpc_wire.BIG[:200_000], model="held"))
    raw.feed(headers(1, block()) + data_frame(1, message, 1))
    assert room.held_bytes == len(message)
    raw.dataplane.held[0][0].cancelled = False
    raw.feed(grpc_wire.frame(grpc_wire.frames.RST_STREAM, 0, 1, bytes(4)))
    assert room.held_bytes == 0


def test_a_message_that_there_is_never_room_for_is_refused_at_once():
    _, raw = grpc(most=500_000)
    raw.feed(upload(1, 10))
    assert b"larger than max (700000 vs. 500000)" in raw.transport.sent


def test_a_frame_that_goes_on_after_its_call_gave_way_belongs_to_nobody():
    room, raw = grpc()
    other = Raw(beside=raw)
    other.feed(HELLO)
    whole = upload(1, 600_000)
    raw.feed(whole[:-100_000])
    other.feed(upload(1, 600_000))
    assert raw.connection.get_buffer(-1) is raw.listener.receive_buffer
    raw.feed(whole[-100_000:] + grpc_wire.call_bytes(3))
    assert 600_000 <= room.held_bytes < 601_000
    assert any(kind == 0 and number == 3 for kind, _, number, _ in raw.frames())


def test_a_client_that_does_not_read_its_answers_is_cut():
    room, raw = grpc()
    other = Raw(beside=raw)
    for each in (raw, other):
        each.transport.unsent = 600_000
        each.connection.pause_writing()
    assert (raw.transport.aborted, other.transport.aborted) == (True, False)
    other.transport.unsent = 0
    other.connection.resume_writing()
    assert room.held_bytes == 0


def packed_call(number: int, coding: str, message: bytes, path: str = INFER) -> bytes:
    fields = block(path, (b"grpc-encoding", coding.encode()))
    return headers(number, fields) + data_frame(number, framed(SQUEEZE[coding](message), 1), 1)


@CODINGS
@pytest.mark.parametrize("path", [INFER, STREAM])
@pytest.mark.parametrize(("others", "status"), [(0, b"8"), (600_000, b"14")])
def test_a_message_is_unpacked_as_far_as_there_is_room(
    coding: str, path: str, others: int, status: bytes
):
    room, raw = grpc()
    if others:
        raw.feed(upload(1, others))
    held = room.held_bytes
    other = Raw(beside=raw)
    other.feed(HELLO + packed_call(1, coding, bytes(20 * MIB), path))
    assert b"--request-memory-mb" in other.transport.sent
    assert b"grpc-status" + bytes([len(status)]) + status in other.transport.sent
    assert b"--request-memory-mb" not in raw.transport.sent
    assert room.held_bytes == held


@pytest.mark.parametrize("path", [INFER, STREAM])
@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_message_takes_room_until_it_is_answered(path: str, coding: str):
    room, raw = grpc()
    request = grpc_wire.infer_request(grpc_wire.BIG[:100_000], model="held")
    message = request.SerializeToString()
    if coding == "gzip":
        raw.feed(packed_call(1, coding, message, path))
    else:
        raw.feed(headers(1, block(path)) + data_frame(1, framed(message), 1))
    assert len(message) - 65_536 <= room.held_bytes < 2 * len(message)
    _, held, reply = raw.dataplane.held[0]
    reply(raw.dataplane._echo(held))
    assert room.held_bytes == 0


@pytest.mark.parametrize("path", [INFER, STREAM, grpc_wire.SERVICE + "ServerLive"])
def test_grpcios_messages_take_room_too(path: str):
    client = pytest.importorskip("grpc")
    limits = GrpcLimits(room=Room(MIB))

    def start(dataplane: Any) -> Any:
        return native_grpc.start(dataplane, Address("127.0.0.1", 0), limits, grpc_impl="grpcio")

    def code(channel: Any, size: int, **how: Any) -> Any:
        if path == STREAM:
            call = channel.stream_stream(path)(iter([bytes(size)]), **how)
        else:
            call = channel.unary_unary(path).future(bytes(size), **how)
        return call.code()

    with running(start) as server, client.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        bomb = code(channel, 20 * MIB, compression=client.Compression.Gzip)
        assert bomb is client.StatusCode.RESOURCE_EXHAUSTED
        assert server.on_loop(lambda: limits.room.held_bytes) == 0
        if path != STREAM:
            server.on_loop(lambda: limits.room.take("others", 900_000))
            assert code(channel, 200_000) is client.StatusCode.UNAVAILABLE

"""Large bodies are unpacked beside the loop: who waits for what, in which order."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from tests.server.grpc import wire as grpc_wire
from tests.server.grpc.wire import HELLO, INFER, STREAM, Raw
from tests.server.http.wire import Wire
from tuili.errors import InvalidArgument, Overloaded, TooLarge
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.http.limits import HttpLimits
from tuili.server.room import Room
from tuili.server.unpackers import Unpackers
from tuili.server.unpacking import Unpacking

MIB = 1 << 20
BIG = np.random.default_rng(5).standard_normal(300_000).astype(np.float32)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions are no events
            await asyncio.sleep(0)


def unpacking(data: bytes, most: int = 1 << 30) -> Unpacking:
    return Unpacking(zlib.compress(data), 15, most, "it", TooLarge("enough"))


def begin(unpackers: Unpackers, found: Unpacking, claim: Callable[[int], None] = lambda _: None):
    waiting = unpackers.unpack(found, claim, asyncio.get_running_loop())
    assert isinstance(waiting, asyncio.Future)
    return waiting


def test_what_is_little_is_there_at_once_and_what_is_much_later():
    async def check() -> None:
        unpackers, loop = Unpackers(), asyncio.get_running_loop()
        assert unpackers.unpack(unpacking(bytes(200_000)), lambda _: None, loop) == bytes(200_000)
        claimed: list[int] = []
        waiting = begin(unpackers, unpacking(BIG.tobytes()), claimed.append)
        assert bytes(await waiting) == BIG.tobytes()
        assert sum(claimed) == BIG.nbytes - (64 << 10)

    asyncio.run(check())


def test_a_body_of_a_megabyte_does_not_wait_for_bombs_and_they_come_one_after_the_other():
    async def check() -> None:
        unpackers, turns = Unpackers(1), []
        bodies = [
            begin(unpackers, unpacking(bytes(size)), lambda _, name=name: turns.append(name))
            for name, size in (("a", 8 * MIB), ("b", 8 * MIB), ("c", MIB))
        ]
        del turns[:]  # what the loop did
        await asyncio.gather(*bodies)
        assert [name for name, _ in groupby(turns)] == ["a", "b", "c", "a", "b"]

    asyncio.run(check())


def test_a_body_that_nobody_waits_for_any_more_is_given_up():
    async def check() -> None:
        unpackers, claimed = Unpackers(1), []
        first = begin(unpackers, unpacking(bytes(512 * MIB)), claimed.append)
        first.cancel()
        del claimed[:]
        assert len(await begin(unpackers, unpacking(bytes(MIB)))) == MIB
        assert not claimed

    asyncio.run(check())


def refuse(_: int) -> None:
    raise Overloaded("no room")


@pytest.mark.parametrize(
    ("data", "claims", "error"),
    [
        (unpacking(bytes(2 * MIB), most=MIB), lambda _: None, TooLarge("enough")),
        (
            Unpacking(zlib.compress(bytes(2 * MIB))[:-1], 15, 1 << 30, "it", TooLarge("")),
            lambda _: None,
            InvalidArgument("it ends too early"),
        ),
    ],
)
def test_what_is_wrong_is_told_and_the_next_body_has_its_turn(data: Any, claims: Any, error: Any):
    async def check() -> None:
        unpackers = Unpackers(1)
        waiting = begin(unpackers, data, claims)
        other = begin(unpackers, unpacking(bytes(MIB)))
        with pytest.raises(type(error), match=str(error)):
            await waiting
        assert len(await other) == MIB

    asyncio.run(check())


# HTTP ----------------------------------------------------------------------------------------


def http() -> tuple[Room, Wire]:
    room = Room(16 * MIB)
    wire = Wire(HttpLimits(room=room))
    wire.listener.connections.loop = asyncio.get_running_loop()
    return room, wire


def post(model: str, body: bytes, *fields: bytes) -> bytes:
    head = b"POST /v2/models/%b/infer HTTP/1.1\r\nHost: a\r\n" % model.encode()
    return head + b"".join(fields) + b"Content-Length: %d\r\n\r\n" % len(body) + body


TENSOR = b'{"id":"%b","inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1.0]}]}'


def padded(ident: bytes, model: str = "identity") -> bytes:
    body = gzip.compress(TENSOR % ident + b" " * (2 * MIB), mtime=0)
    return post(model, body, b"Content-Encoding: gzip\r\n")


def test_others_are_answered_meanwhile_and_pipelined_requests_in_order():
    async def check() -> None:
        room, wire = http()
        other = Wire(beside=wire)
        wire.feed(padded(b"large") + post("identity", TENSOR % b"small"))
        assert not wire.transport.sent
        assert other.answer(post("identity", TENSOR % b"other")).json["id"] == "other"
        await until(lambda: b"small" in wire.transport.sent)
        assert [answer.json["id"] for answer in wire.answers()] == ["large", "small"]
        assert room.held_bytes == 0

    asyncio.run(check())


def test_a_client_that_leaves_meanwhile_asks_for_nothing_and_holds_nothing():
    async def check() -> None:
        room, wire = http()
        other = Wire(beside=wire)
        wire.feed(padded(b"gone"))
        wire.connection.connection_lost(None)
        other.feed(padded(b"stays"))
        await until(lambda: b"stays" in other.transport.sent)
        assert [request.id for request in wire.dataplane.requests] == ["stays"]
        assert room.held_bytes == 0

    asyncio.run(check())


def test_what_there_is_no_room_for_is_refused_later_too():
    async def check() -> None:
        room, wire = http()
        body = gzip.compress(bytes(20 * MIB), mtime=0)
        wire.feed(post("identity", body, b"Content-Encoding: gzip\r\n"))
        await until(lambda: bool(wire.transport.sent))
        assert (wire.status, room.held_bytes) == (413, 0)
        assert wire.answer(post("identity", TENSOR % b"")).status == 200

    asyncio.run(check())


# gRPC ----------------------------------------------------------------------------------------


def grpc() -> tuple[Room, Raw]:
    room = Room(16 * MIB)
    raw = Raw(GrpcLimits(room=room))
    loop = raw.listener.connections.loop = asyncio.get_running_loop()
    raw.listener.assembly.loop = loop
    raw.feed(HELLO)
    return room, raw


def message(ident: str, array: np.ndarray[Any, Any], model: str = "identity") -> bytes:
    request = grpc_wire.infer_request(array, model, id=ident).SerializeToString()
    return grpc_wire.framed(gzip.compress(request, 1, mtime=0), 1)


def data(number: int, message: bytes, flags: int = 0) -> bytes:
    """A message in as many frames as it takes; the last one has the flags."""
    pieces = [message[at : at + MIB] for at in range(0, len(message), MIB)]
    frames = [grpc_wire.data_frame(number, piece, 0) for piece in pieces[:-1]]
    return b"".join(frames) + grpc_wire.data_frame(number, pieces[-1], flags)


def call(number: int, path: str, message: bytes, flags: int = 1) -> bytes:
    fields = grpc_wire.block(path, (b"grpc-encoding", b"gzip"))
    return grpc_wire.headers(number, fields) + data(number, message, flags)


def test_another_call_is_answered_meanwhile():
    async def check() -> None:
        room, raw = grpc()
        raw.feed(call(1, INFER, message("large", BIG)) + call(3, INFER, message("small", BIG[:9])))
        assert [request.id for request in raw.dataplane.requests] == ["small"]
        await until(lambda: len(raw.dataplane.requests) == 2)
        assert np.array_equal(raw.dataplane.requests[1].inputs[0].data, BIG)
        raw.feed(grpc_wire.frames.window_update_frame(0, 8 * MIB))
        raw.feed(grpc_wire.frames.window_update_frame(1, 8 * MIB))
        assert room.held_bytes == 0
        assert any(number == 1 and flags & 1 for _, flags, number, _ in raw.frames())

    asyncio.run(check())


def test_messages_of_a_stream_keep_their_order_behind_one_that_is_much():
    async def check() -> None:
        room, raw = grpc()
        raw.feed(
            call(1, STREAM, message("1", BIG), 0)
            + data(1, message("2", BIG[:5]))
            + data(1, message("3", BIG))
            + data(1, message("4", BIG[:5]), 1)
        )
        assert not raw.dataplane.requests
        await until(lambda: len(raw.dataplane.requests) == 4)
        assert [request.id for request in raw.dataplane.requests] == ["1", "2", "3", "4"]
        for number in (0, 1):
            raw.feed(grpc_wire.frames.window_update_frame(number, 8 * MIB))
        assert room.held_bytes == 0
        assert any(number == 1 and flags & 1 for _, flags, number, _ in raw.frames())

    asyncio.run(check())


@pytest.mark.parametrize("path", [INFER, STREAM])
def test_a_call_that_is_taken_back_meanwhile_holds_nothing(path: str):
    async def check() -> None:
        room, raw = grpc()
        raw.feed(call(1, path, message("gone", BIG)))
        raw.feed(grpc_wire.frame(grpc_wire.frames.RST_STREAM, 0, 1, bytes(4)))
        raw.feed(call(3, path, message("stays", BIG)))
        await until(lambda: bool(raw.dataplane.requests))
        assert [request.id for request in raw.dataplane.requests] == ["stays"]
        raw.connection.connection_lost(None)
        assert room.held_bytes == 0

    asyncio.run(check())


@pytest.mark.parametrize("path", [INFER, STREAM])
def test_a_message_that_there_is_no_room_for_ends_its_call_later_too(path: str):
    async def check() -> None:
        room, raw = grpc()
        bomb = grpc_wire.framed(gzip.compress(bytes(20 * MIB), mtime=0), 1)
        raw.feed(call(1, path, bomb))
        assert b"--request-memory-mb" not in raw.transport.sent
        await until(lambda: b"--request-memory-mb" in raw.transport.sent)
        assert room.held_bytes == 0

    asyncio.run(check())

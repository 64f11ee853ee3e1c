"""Clients that send large bodies leave every other client its turn."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.grpc.wire import HELLO, INFER, Raw, block, data_frame, headers
from tests.server.http.wire import Transport, Wire
from tuili.server.turns import TURN_BYTES

START = b"POST /v2/models/identity/infer HTTP/1.1\r\nHost: a\r\n"
SIZED = START + b"Content-Length: 3000000\r\n\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n2DC6C0\r\n"
MESSAGE = b"\0" + struct.pack(">I", 3_000_000)


class Loop:
    """Remembers what is to be called in its next turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], Any]] = []

    def call_soon(self, function: Callable[..., Any], *given: Any) -> None:
        self.soon.append(lambda: function(*given))

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for call in soon:
            call()


def pieces(size: int, piece: int = 60_000) -> list[bytes]:
    return [b" " * min(piece, size - at) for at in range(0, size, piece)]


@pytest.mark.parametrize(
    ("client", "start"),
    [(Wire, [SIZED]), (Wire, [CHUNKED]), (Raw, [HELLO, headers(1, block(INFER))])],
    ids=["sized", "chunked", "grpc"],
)
def test_a_large_body_is_read_a_part_at_a_time(client: type[Wire | Raw], start: list[bytes]):
    wire, loop = client(), Loop()
    wire.listener.connections.loop = loop  # type: ignore[assignment]
    for part in start:
        wire.feed(part)
    turns = sent = 0
    for number, piece in enumerate(pieces(2_900_000)):
        message = (b"" if number else MESSAGE) + piece
        wire.feed(data_frame(1, message, 0) if client is Raw else piece)
        sent += len(message)
        if not wire.transport.reading:
            assert sent >= TURN_BYTES
            loop.turn()
            assert wire.transport.reading
            turns, sent = turns + 1, 0
    assert turns == 2


def test_the_socket_is_never_asked_for_more_than_that():
    wire = Wire()
    wire.feed(SIZED)
    assert len(wire.connection.get_buffer(-1)) == TURN_BYTES


def test_a_client_that_has_gone_meanwhile_is_left_alone():
    wire, loop = Wire(), Loop()
    wire.listener.connections.loop = loop  # type: ignore[assignment]
    wire.feed(SIZED)
    wire.feed(b" " * (TURN_BYTES))
    assert isinstance(wire.transport, Transport)
    wire.transport.abort()
    loop.turn()
    assert not wire.transport.reading

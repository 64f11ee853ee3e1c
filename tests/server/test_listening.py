from __future__ import annotations

import logging
import socket

import pytest

from tests.server.grpc.wire import Raw
from tests.server.http.wire import Transport, Wire
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.http.limits import HttpLimits
from tuili.server.listening import Connections


class Counted:
    def __init__(self) -> None:
        self.checks: list[float] = []
        self.drained = self.aborted = False
        self.refusal = ""

    def check(self, now: float) -> None:
        self.checks.append(now)

    def drain(self) -> None:
        self.drained = True

    def dismiss(self, text: str) -> bool:
        return False

    def turn_away(self, text: str) -> None:
        self.refusal = text

    def abort(self) -> None:
        self.aborted = True


def test_many_connections_are_checked_in_rounds_of_batches():
    connections = Connections(10_000)
    clients = [Counted() for _ in range(1200)]
    for client in clients:
        connections.opened(client, Transport())  # type: ignore[arg-type]
    assert [connections.tick(1.0), connections.tick(2.0), connections.tick(3.0)] == [
        True, True, False,
    ]  # fmt: skip
    assert all(len(client.checks) == 1 for client in clients)
    assert connections.now == 3.0


def test_clients_above_the_limit_are_turned_away():
    connections = Connections(1)
    first, second = Counted(), Counted()
    for client in (first, second):
        connections.opened(client, Transport())  # type: ignore[arg-type]
    assert (first.refusal, len(connections)) == ("", 2)
    assert second.refusal == "the server has as many connections as it may (1); try again later"
    connections.closed(second)
    connections.abort()
    assert (first.aborted, second.aborted) == (True, False)


def test_clients_whose_descriptor_is_one_of_the_last_are_turned_away_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
):
    transport, clients = Transport(), [Counted() for _ in range(3)]
    with caplog.at_level(logging.WARNING, "tuili.server"), socket.socket() as transport.socket:
        number = transport.socket.fileno()
        below, above = Connections(10, number + 1), Connections(10, number)
        for client, connections in zip(clients, (below, above, above), strict=True):
            connections.opened(client, transport)  # type: ignore[arg-type]
    assert [bool(client.refusal) for client in clients] == [False, True, True]
    (told,) = caplog.messages
    assert f"{number} files and connections are open" in told


def test_an_http_client_that_is_turned_away_hears_why():
    wire = Wire(HttpLimits(max_connections=0))
    (answer,) = wire.answers()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "as many connections as it may (0)" in answer.error
    assert wire.transport.closed
    wire.connection.buffer_updated(100)
    assert len(wire.answers()) == 1


def test_a_grpc_client_that_is_turned_away_hears_why():
    raw = Raw(GrpcLimits(max_connections=0))
    assert b"as many connections as it may (0)" in raw.transport.sent
    assert raw.transport.closed

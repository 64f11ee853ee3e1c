"""Clients that close their half of the connection behind their requests get their answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.server.http.wire import Wire, request
from tests.server.running import Running, running
from tuili.server.http import start
from tuili.server.http.limits import HttpLimits
from tuili.server.listening import Address

LIVE = request("GET", "/v2/health/live")
GONE = request("GET", "/nowhere")


def infer(model: str = "held", count: int = 1) -> bytes:
    inputs = [{"name": "INPUT", "datatype": "FP32", "shape": [count], "data": [1.5] * count}]
    return request("POST", f"/v2/models/{model}/infer", {"inputs": inputs})


def statuses(wire: Wire) -> list[int]:
    return [each.status for each in wire.answers()]


def test_what_was_asked_is_answered_and_then_the_connection_ends():
    wire = Wire()
    wire.feed(infer() + LIVE + GONE)
    assert wire.connection.eof_received()
    assert not wire.transport.closed
    wire.dataplane.release()
    assert statuses(wire) == [200, 200, 404]
    assert wire.transport.closed
    assert not wire.transport.aborted
    assert [each.headers.get("connection") for each in wire.answers()] == [None, None, None]


def test_the_only_answer_says_that_it_is_the_last():
    wire = Wire()
    wire.feed(infer())
    assert wire.connection.eof_received()
    wire.dataplane.release()
    (answer,) = wire.answers()
    assert answer.headers["connection"] == "close"
    assert wire.transport.closed


@pytest.mark.parametrize("more", [LIVE[:20], infer()[:-3], infer()[:-200]])
def test_a_request_that_will_never_be_whole_ends_the_connection(more: bytes):
    wire = Wire()
    wire.feed(LIVE + more)
    assert not wire.connection.eof_received()
    wire = Wire()
    wire.feed(infer() + more)
    assert wire.connection.eof_received()
    wire.dataplane.release()
    assert statuses(wire) == [200]
    assert wire.transport.closed or wire.transport.eof


def test_an_idle_client_is_not_kept():
    wire = Wire()
    assert not wire.connection.eof_received()
    wire = Wire()
    wire.feed(LIVE)
    assert not wire.connection.eof_received()


def test_requests_wait_until_a_slow_client_has_read():
    wire = Wire()
    wire.feed(LIVE)
    wire.connection.pause_writing()
    wire.feed(LIVE + LIVE)
    assert wire.connection.eof_received()
    assert statuses(wire) == [200]
    wire.connection.resume_writing()
    assert statuses(wire) == [200, 200, 200]
    assert wire.transport.closed


def test_a_client_that_never_reads_is_cut():
    limits = HttpLimits()
    wire = Wire(limits)
    wire.feed(infer() + LIVE)
    assert wire.connection.eof_received()
    wire.connection.pause_writing()
    wire.transport.unsent = 1 << 20
    wire.dataplane.release()
    assert statuses(wire) == [200]
    wire.connection.check(limits.write_timeout_s + 1)  # it is looked at: this much is left
    assert not wire.transport.aborted
    wire.connection.check(2 * limits.write_timeout_s + 2)
    assert wire.transport.aborted


def test_what_little_it_leaves_unread_holds_no_connection():
    limits = HttpLimits()
    wire = Wire(limits)
    wire.feed(LIVE)
    assert not wire.connection.eof_received()
    wire.connection.check(limits.linger_s + 1)
    assert wire.transport.aborted


def test_reading_is_not_begun_again():
    wire = Wire()
    wire.feed(infer() + LIVE * 6000)
    assert not wire.transport.reading
    wire.connection._paused = False  # as after the read that brought the end
    assert wire.connection.eof_received()
    wire.transport.resume_reading = lambda: pytest.fail("a stream that has ended is read")  # type: ignore[method-assign]
    wire.dataplane.release()
    assert statuses(wire) == [200] * 6001


# Real sockets -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(lambda dataplane: start(dataplane, Address("127.0.0.1", 0))) as found:
        yield found


def ask(server: Running, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    return client


def heard(client: socket.socket) -> bytes:
    with client:
        found = b""
        while piece := client.recv(1 << 16):
            found += piece
    return found


def test_the_answer_comes_over_a_socket(server: Running):
    client = ask(server, infer() + LIVE)
    server.held()
    server.on_loop(server.dataplane.release)
    assert heard(client).count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_has_closed_all_takes_its_request_back(server: Running):
    client = ask(server, infer())
    ticket = server.held()
    client.close()
    assert server.until(lambda: ticket.cancelled)


def test_one_that_waits_for_long_hears_that_it_may():
    wire = Wire()
    wire.feed(infer() + infer())
    assert wire.connection.eof_received()
    wire.connection.check(1.0)
    wire.connection.check(2.0)
    wire.dataplane.release()
    wire.dataplane.release()
    assert statuses(wire) == [100, 200, 200]


def test_one_of_an_older_protocol_hears_nothing():
    wire = Wire()
    wire.feed(infer().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert wire.connection.eof_received()
    wire.connection.check(1.0)
    wire.dataplane.release()
    assert statuses(wire) == [200]


def test_half_a_request_ends_at_once(server: Running):
    assert heard(ask(server, infer()[:-1])) == b""


def test_a_client_that_has_gone_takes_its_request_back(server: Running):
    client = ask(server, infer())
    ticket = server.held()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert server.until(lambda: ticket.cancelled)


def test_a_long_answer_arrives_whole(server: Running):
    count = 60_000
    found = heard(ask(server, infer("identity", count) + LIVE))
    assert found.count(b"1.5") == count
    assert found.count(b"HTTP/1.1 200 OK") == 2

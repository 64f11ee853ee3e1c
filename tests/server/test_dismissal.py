"""Whoever is not answered when the exit timeout is over is told so before the sockets close."""

import asyncio
import json

import numpy as np
import pytest

from tests.server.fake_dataplane import FakeDataPlane
from tests.server.grpc import wire as grpc_wire
from tests.server.http import wire as http_wire
from tests.server.running import running
from tuili.server import grpc as native_grpc
from tuili.server import http as native_http
from tuili.server.listening import Address

TENSOR = {"name": "INPUT", "datatype": "FP32", "shape": [1], "data": [1.0]}
HELD = http_wire.request("POST", "/v2/models/held/infer", {"inputs": [TENSOR]})
WAITS = "waits no longer for this request"


@pytest.mark.parametrize(
    "sent",
    [HELD, HELD[:-5], HELD[:30], HELD + HELD],
    ids=["waits for an answer", "half a body", "half a head", "two waiting"],
)
def test_a_request_under_way_is_refused_and_the_connection_closed(sent):
    wire = http_wire.Wire()
    wire.feed(sent)
    wire.listener.connections.drain()
    assert wire.listener.connections.dismiss() == 1
    (answer,) = wire.answers()
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert WAITS in answer.error
    assert wire.transport.closed or wire.transport.eof
    for ticket, _, reply in wire.dataplane.held:
        assert ticket.cancelled
        reply(wire.dataplane._echo(wire.dataplane.requests[0]))  # comes too late
    assert len(wire.answers()) == 1


def test_an_idle_client_is_left_without_a_word():
    wire = http_wire.Wire()
    wire.listener.connections.drain()
    assert wire.listener.connections.dismiss() == 0
    assert wire.transport.closed
    assert not wire.transport.sent


class Endless(FakeDataPlane):
    """Its model answers once, and goes on for ever."""

    def submit_stream(self, request, reply):
        reply(self._echo(request), False)
        return self.submit(request, lambda _: None)

    def model_metadata(self, model, version):
        return {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [1]}], "outputs": []}


@pytest.mark.parametrize("old", [False, True], ids=["chunks", "HTTP/1.0"])
def test_a_stream_of_events_ends_with_an_error(old):
    wire = http_wire.Wire(dataplane=Endless())
    request = http_wire.request("POST", "/v2/models/held/generate_stream", {"INPUT": 1.0})
    wire.feed(request.replace(b"HTTP/1.1", b"HTTP/1.0") if old else request)
    wire.listener.connections.drain()
    assert wire.listener.connections.dismiss() == 1
    events = bytes(wire.transport.sent) if old else wire.answers()[0].body
    last = events.removesuffix(b"\n\n").rpartition(b"data: ")[2]
    assert WAITS in json.loads(last)["error"]
    assert wire.dataplane.held[0][0].cancelled
    assert wire.transport.closed or wire.transport.eof


@pytest.mark.parametrize("path", [grpc_wire.INFER, grpc_wire.STREAM])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half a message"])
def test_a_call_under_way_is_unavailable(path, whole):
    async def scenario():
        wire = grpc_wire.Wire()
        number = wire.open(path)
        message = grpc_wire.framed(grpc_wire.infer_request(model="held"))
        wire.send(number, message if whole else message[:20], end=whole)
        assert wire.listener.connections.dismiss() == 1
        wire.sync()
        reply = wire.replies[number]
        assert (reply.status, WAITS in reply.text) == (14, True)
        assert all(ticket.cancelled for ticket, _, _ in wire.dataplane.held)
        assert wire.left

    grpc_wire.in_loop(scenario)


def test_a_call_that_is_answered_but_not_read_counts_as_left():
    async def scenario():
        wire = grpc_wire.Wire(settings={4: 10})
        number = wire.open()
        wire.acknowledge = False
        wire.send(number, grpc_wire.framed(grpc_wire.infer_request(np.ones(99, np.float32))))
        assert wire.listener.connections.dismiss() == 1

    grpc_wire.in_loop(scenario)


@pytest.mark.parametrize("transport", [native_http, native_grpc], ids=["http", "grpc"])
def test_the_door_tells_whether_all_were_answered(transport):
    """A client that takes nothing is cut in the end."""

    def start(dataplane):
        return transport.start(dataplane, Address("127.0.0.1", 0))

    call = grpc_wire.HELLO + grpc_wire.call_bytes(1, "held")
    with running(start) as server:
        request = HELD if transport is native_http else call

        async def end():
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            await server.dataplane.holding.wait()
            server.front_end.close()
            finished = await server.front_end.wait_closed(0.0)
            heard = await reader.read()
            writer.close()
            return finished, heard

        finished, heard = asyncio.run_coroutine_threadsafe(end(), server.loop).result(10)
    assert not finished
    assert b"exit-timeout" in heard


@pytest.mark.parametrize("path", [grpc_wire.INFER, grpc_wire.STREAM])
def test_grpcios_calls_under_way_are_unavailable_too(path):
    grpc = pytest.importorskip("grpc")

    def start(dataplane):
        return native_grpc.start(dataplane, Address("127.0.0.1", 0), grpc_impl="grpcio")

    with running(start) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        message = grpc_wire.infer_request(model="held").SerializeToString()
        if path == grpc_wire.INFER:
            call = channel.unary_unary(path).future(message)
        else:
            call = channel.stream_stream(path)(iter([message]))
        ticket = server.held()

        async def end():
            server.front_end.close()
            return await server.front_end.wait_closed(0.0)

        assert not asyncio.run_coroutine_threadsafe(end(), server.loop).result(10)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert WAITS in call.details()
        assert ticket.cancelled

"""Unary calls over a connection: answers, windows, padding, compression, deadlines, bugs."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.server.fake_dataplane import FakeDataPlane
from tests.server.grpc.wire import (
    BIG,
    SERVICE,
    STREAM,
    Reply,
    Wire,
    framed,
    in_loop,
    infer_request,
    responses,
)
from tuili.errors import DeadlineExceeded
from tuili.server.dataplane import Json
from tuili.server.grpc.limits import GrpcLimits
from tuili.server.grpc.schema import HEALTH_V1, INFERENCE
from tuili.server.protocol.restrictions import Restrictions


def test_a_call_is_answered():
    wire = Wire()
    reply = wire.call(infer_request(id="7"))
    assert reply.headers == {":status": "200", "content-type": "application/grpc"}
    assert (reply.status, reply.text, reply.ended) == (0, "", True)
    assert reply.infer().id == "7"
    assert reply.infer().raw_output_contents == [np.arange(4, dtype=np.float32).tobytes()]
    assert wire.connection._streams == {}


def test_errors_are_statuses():
    wire = Wire()
    reply = wire.call(infer_request(model="nope"))
    assert (reply.status, reply.text) == (5, "Request for unknown model: 'nope' is not found")
    busy = wire.call(infer_request(model="busy"))
    assert (busy.status, busy.headers["grpc-retry-pushback-ms"]) == (14, "250")
    assert "grpc-retry-pushback-ms" not in reply.headers
    assert wire.call(b"\xff").status == 13
    assert wire.call(b"", SERVICE + "Unknown").status == 12
    assert wire.call(infer_request()).status == 0


def test_other_methods_are_answered():
    wire = Wire()
    ready = INFERENCE["ModelReadyRequest"](name="simple")
    (message,) = wire.call(ready, SERVICE + "ModelReady").messages
    assert INFERENCE["ModelReadyResponse"].FromString(message).ready
    health = HEALTH_V1["HealthCheckRequest"]
    assert wire.call(health(), "/grpc.health.v1.Health/Check").messages == [b"\x08\x01"]
    assert wire.call(health(service="x"), "/grpc.health.v1.Health/Check").status == 5


def test_a_slow_method_is_answered_later():
    async def scenario() -> None:
        wire = Wire()
        message = INFERENCE["RepositoryModelLoadRequest"](model_name="m")
        reply = wire.call(message, SERVICE + "RepositoryModelLoad")
        async with asyncio.timeout(5):
            while not reply.ended:
                await asyncio.sleep(0)
                wire.sync()
        assert reply.status == 0
        assert wire.dataplane.loaded == [("m", None)]

    asyncio.run(scenario())


@pytest.mark.parametrize("window", [1, 1000, 65_535, 1 << 20])
def test_large_messages_obey_the_windows(window: int):
    array = BIG[:300] if window == 1 else BIG
    wire = Wire(settings={4: window})
    reply = wire.call(infer_request(array))
    assert reply.infer().raw_output_contents == [array.tobytes()]
    assert reply.status == 0


def test_nothing_is_sent_beyond_the_connections_window():
    wire = Wire(settings={4: 1 << 30})
    wire.acknowledge = False
    reply = wire.call(infer_request(BIG))
    assert len(reply.data) == 65_535
    second = wire.call(infer_request())
    assert not second.ended
    wire.client.increment_flow_control_window(1 << 20)
    wire.sync()
    assert reply.infer().raw_output_contents == [BIG.tobytes()]
    assert second.status == 0


def test_the_windows_we_give_are_given_back():
    wire = Wire(GrpcLimits(stream_window=70_000, connection_window=70_000))
    for _ in range(3):
        assert wire.call(infer_request(BIG)).status == 0


def test_a_large_message_arrives_in_place():
    wire = Wire()
    wire.call(infer_request(BIG))
    first = wire.dataplane.requests[0].inputs[0].data
    wire.call(infer_request(BIG + 1))
    assert first.ctypes.data % 64 == 0
    np.testing.assert_array_equal(first, BIG)
    np.testing.assert_array_equal(wire.dataplane.requests[1].inputs[0].data, BIG + 1)


@pytest.mark.parametrize("pad", [0, 7, 255])
def test_padding_is_dropped(pad: int):
    wire = Wire()
    for array in (BIG[:4], BIG[:60_000]):
        number = wire.open()
        wire.send(number, framed(infer_request(array)), pad=pad)
        assert wire.replies[number].infer().raw_output_contents == [array.tobytes()]


@pytest.mark.parametrize(
    ("encoding", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_messages_are_read(encoding: str, squeeze: Callable[[bytes], bytes]):
    wire = Wire()
    number = wire.open(grpc_encoding=encoding)
    wire.send(number, framed(squeeze(infer_request(BIG).SerializeToString()), 1))
    assert wire.replies[number].infer().raw_output_contents == [BIG.tobytes()]


@pytest.mark.parametrize(
    ("data", "encoding", "status", "text"),
    [
        (framed(b"x", 1), "identity", 3, "no grpc-encoding"),
        (framed(b"x", 1), "snappy", 12, "'snappy' is not supported"),
        (framed(b"x", 1), "gzip", 3, "failed to decompress the message"),
        (framed(gzip.compress(b"x", mtime=0)[:-2], 1), "gzip", 3, "ends too early"),
        (framed(gzip.compress(bytes(3000), mtime=0), 1), "gzip", 8, "larger than max"),
        (framed(bytes(2001)), "identity", 8, "larger than max (2001 vs. 2000)"),
        (framed(b"x", 2), "identity", 3, "compression flag 2"),
        (b"\x00\x00\x00\x00\x05abc", "identity", 13, "inside a message"),
        (b"\x00\x00", "identity", 13, "inside a message"),
        (b"", "identity", 13, "without a message"),
        (framed(b"") * 2, "identity", 13, "more than one message"),
    ],
)
def test_messages_that_are_none_end_their_call_only(
    data: bytes, encoding: str, status: int, text: str
):
    wire = Wire(GrpcLimits(max_message_bytes=2000, max_decompressed_bytes=2000))
    number = wire.open(grpc_encoding=encoding)
    wire.send(number, data)
    reply = wire.replies[number]
    assert (reply.status, reply.ended) == (status, True)
    assert text in reply.text
    assert wire.call(infer_request()).status == 0


def test_a_refusal_before_the_end_stops_the_client():
    wire = Wire(GrpcLimits(max_message_bytes=2000))
    number = wire.open()
    wire.send(number, framed(bytes(5000)), end=False)
    assert wire.replies[number].status == 8
    assert wire.replies[number].reset == 0


def test_a_reset_cancels_the_request():
    wire = Wire()
    number = wire.open()
    wire.send(number, framed(infer_request(model="held")))
    wire.client.reset_stream(number, 8)
    wire.sync()
    assert wire.dataplane.held[0][0].cancelled
    assert wire.connection._streams == {}
    assert wire.call(infer_request()).status == 0


def test_a_lost_connection_cancels_its_requests():
    wire = Wire()
    for _ in range(2):
        wire.send(wire.open(), framed(infer_request(model="held")))
    wire.connection.connection_lost(None)
    assert all(ticket.cancelled for ticket, _, _ in wire.dataplane.held)
    wire.dataplane.held[0][2](wire.dataplane._echo(wire.dataplane.requests[0]))


def test_a_deadline_ends_the_call_and_cancels_the_request():
    async def scenario() -> None:
        wire = Wire()
        number = wire.open(grpc_timeout="5S")
        wire.send(number, framed(infer_request(model="held")))
        now = asyncio.get_running_loop().time()
        (ticket, request, _) = wire.dataplane.held[0]
        assert request.deadline == pytest.approx(now + 5, abs=1)
        wire.listener.connections.tick(now + 3)
        wire.sync()
        assert not wire.replies.get(number)
        wire.listener.connections.tick(now + 6)
        wire.sync()
        assert (wire.replies[number].status, wire.replies[number].text) == (4, "Deadline Exceeded")
        assert ticket.cancelled

    in_loop(scenario)


@pytest.mark.parametrize(
    ("timeout", "status", "text"),
    [("1n", 4, "Deadline Exceeded"), ("9H", 14, "Request timeout expired")],
)
def test_a_call_that_is_late_is_told_from_a_request_that_waited_too_long(timeout, status, text):
    async def scenario() -> None:
        wire = Wire()
        number = wire.open(grpc_timeout=timeout)
        wire.send(number, framed(infer_request(model="held")))
        wire.dataplane.held[0][2](DeadlineExceeded("Request timeout expired"))
        wire.sync()
        assert (wire.replies[number].status, wire.replies[number].text) == (status, text)

    in_loop(scenario)


def test_answers_come_when_they_are_ready():
    wire = Wire()
    first = wire.open()
    wire.send(first, framed(infer_request(model="held")))
    assert wire.call(infer_request()).status == 0
    assert first not in wire.replies
    wire.dataplane.release()
    wire.sync()
    assert wire.replies[first].status == 0


def test_a_slow_reader_gets_its_answers_when_it_reads():
    wire = Wire()
    wire.connection.pause_writing()
    reply = wire.call(infer_request(BIG[:4]))
    assert reply.data == b""
    wire.connection.resume_writing()
    wire.sync()
    assert reply.status == 0


@pytest.mark.parametrize("model", ["raises", "unwritable"])
def test_a_bug_ends_its_stream_only(model: str):
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model=model)))
    reply = wire.replies[number]
    told = reply.text or responses(reply.data)[0].error_message
    assert "internal error" in told
    assert wire.call(infer_request()).status == 0


def test_an_answer_that_cannot_be_written_is_an_internal_error():
    assert Wire().call(infer_request(model="unwritable")).status == 13


def test_a_bug_in_the_data_plane_is_an_internal_error():
    wire = Wire()
    assert wire.call(infer_request(model="raises")).status == 13
    assert wire.call(infer_request()).status == 0


def test_a_restricted_part_is_for_those_with_the_header():
    keys = {"inference": ("key", "secret")}
    limits = GrpcLimits(restrictions=Restrictions(keys, "protocol", "triton-grpc-protocol-"))
    for more, status in ({}, 14), ({"triton-grpc-protocol-key": "secret"}, 0):
        wire = Wire(limits=limits)
        reply = wire.call(infer_request(), **more)
        assert reply.status == status
        expected = "This protocol is restricted, expecting header 'triton-grpc-protocol-key'"
        assert reply.text == (expected if status else "")


def test_statistics_of_thousands_are_written_with_turns_for_others():
    class Many(FakeDataPlane):
        def each_statistics(self, model: str = "", version: str = "") -> Iterator[Json]:
            for _ in range(300):
                yield from super().each_statistics(model, version)

    async def check() -> None:
        wire = Wire(dataplane=Many())
        wire.listener.connections.loop = wire.listener.inference.loop = asyncio.get_running_loop()
        number = wire.open(SERVICE + "ModelStatistics")
        wire.send(number, framed(INFERENCE["ModelStatisticsRequest"]()))
        assert Wire(beside=wire).call(infer_request()).status == 0
        async with asyncio.timeout(10):
            while not wire.replies.setdefault(number, Reply()).ended:
                assert not wire.transport.sent
                await asyncio.sleep(0)
                wire.sync()
        reply = wire.replies[number]
        (message,) = reply.messages
        found = INFERENCE["ModelStatisticsResponse"].FromString(message)
        assert (reply.status, len(found.model_stats)) == (0, 300)

    asyncio.run(check())

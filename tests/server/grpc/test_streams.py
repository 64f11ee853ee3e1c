"""ModelStreamInfer over a connection: order, ends, errors, cancellation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.server.grpc.wire import (
    BIG,
    STREAM,
    Wire,
    framed,
    infer_request,
    responses,
)
from tuili.server.grpc import frames
from tuili.server.grpc.limits import GrpcLimits


def repeat(count: int, **more: Any) -> Any:
    return infer_request(np.array([count], np.int32), "repeat", **more)


def finals(reply: Any) -> list[bool]:
    return [
        item.infer_response.parameters["triton_final_response"].bool_param
        for item in responses(reply.data)
    ]


def test_a_stream_answers_every_request():
    wire = Wire()
    number = wire.open(STREAM)
    wire.sync()
    assert wire.replies[number].headers[":status"] == "200"  # before the first message
    for ident in "ab":
        wire.send(number, framed(infer_request(id=ident)), end=False)
    wire.send(number, framed(repeat(3)), end=False)
    reply = wire.replies[number]
    assert [item.infer_response.id for item in responses(reply.data)] == ["a", "b", "", "", ""]
    assert finals(reply) == [True, True, False, False, True]
    assert not reply.ended
    wire.client.end_stream(number)
    wire.sync()
    assert reply.status == 0


def test_a_final_answer_that_is_empty_comes_when_asked_for():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(repeat(0)), end=False)
    message = repeat(0, id="e")
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    wire.send(number, framed(message))
    reply = wire.replies[number]
    (only,) = responses(reply.data)
    assert (only.infer_response.id, finals(reply), reply.status) == ("e", [True], 0)


def test_answers_keep_the_order_of_their_requests():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model="held", id="1")), end=False)
    wire.send(number, framed(infer_request(id="2")))
    assert responses(wire.replies[number].data) == []
    wire.dataplane.release()
    wire.sync()
    reply = wire.replies[number]
    assert [item.infer_response.id for item in responses(reply.data)] == ["1", "2"]
    assert reply.status == 0


def test_an_error_is_a_message_and_the_stream_goes_on():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model="nope", id="1")), end=False)
    wire.send(number, framed(b"\xff"), end=False)
    wire.send(number, framed(infer_request(id="2")))
    first, second, third = responses(wire.replies[number].data)
    assert "unknown model" in first.error_message
    assert first.infer_response.id == "1"
    assert "malformed" in second.error_message
    assert third.infer_response.id == "2"
    assert wire.replies[number].status == 0


def test_an_error_ends_a_strict_stream():
    wire = Wire()
    number = wire.open(STREAM, triton_grpc_error="true")
    wire.send(number, framed(infer_request(model="nope")), end=False)
    reply = wire.replies[number]
    assert (reply.status, reply.ended, reply.data) == (5, True, b"")


def test_a_stream_whose_responses_are_not_read_is_ended():
    wire = Wire(GrpcLimits(max_waiting_messages=10), settings={frames.INITIAL_WINDOW_SIZE: 0})
    number = wire.open(STREAM)
    wire.send(number, framed(repeat(50)), end=False)
    reply = wire.replies[number]
    assert (reply.status, reply.data) == (8, b"")
    assert wire.connection._streams == {}


def test_a_cancelled_stream_cancels_its_requests():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(model="held")), end=False)
    wire.client.reset_stream(number, 8)
    wire.sync()
    assert wire.dataplane.held[0][0].cancelled


def test_a_large_message_on_a_stream():
    wire = Wire()
    number = wire.open(STREAM)
    wire.send(number, framed(infer_request(BIG)) + framed(infer_request(BIG, id="2")))
    first, second = responses(wire.replies[number].data)
    assert second.infer_response.raw_output_contents == [BIG.tobytes()]
    assert first.infer_response.raw_output_contents == [BIG.tobytes()]

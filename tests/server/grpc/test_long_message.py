"""Long messages are read in pieces, to what protobuf reads in one go; others have their turn."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from tests.server.grpc.test_typed import NUMBERS, message_of
from tests.server.grpc.wire import STREAM, Reply, Wire, framed, in_loop, responses
from tuili.errors import InternalError, InvalidArgument, TuiliError
from tuili.server.grpc import frames
from tuili.server.grpc.decoding import RequestDecoder
from tuili.server.grpc.long_contents import without_contents
from tuili.server.grpc.long_message import LONG_BYTES, cut, delimited, packed_fields
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.varints import append_varint
from tuili.server.protocol.datatypes import NUMPY, encode

Contents = INFERENCE["InferTensorContents"]
Request = INFERENCE["ModelInferRequest"]
TEXTS = [b"%d" % at * (at % 3) for at in range(50_000)]
NUMBER_COUNT = 90_000


def decode(data: bytes) -> Any:
    (found,) = RequestDecoder().decode(data)[0].inputs
    return found


def contents_of(values: bytes) -> bytes:
    """A long request whose only input has these contents, as they stand on the wire."""
    head = Request(model_name="m")
    head.inputs.add(name="x", datatype="INT64", shape=[NUMBER_COUNT])
    given = head.inputs[0].SerializeToString() + field(delimited(5), values)
    return Request(model_name="m").SerializeToString() + field(delimited(5), given)


def field(tag: int, content: bytes) -> bytes:
    out = bytearray()
    append_varint(out, tag)
    append_varint(out, len(content))
    return bytes(out) + content


@pytest.mark.parametrize("datatype", NUMBERS)
def test_long_numbers_of_every_datatype_are_read_as_they_were_sent(datatype: str):
    rng = random.Random(datatype)
    values = rng.choices(NUMBERS[datatype][1], k=NUMBER_COUNT)
    found = decode(message_of(datatype, values).SerializeToString())
    np.testing.assert_array_equal(found.data, np.array(values, NUMPY[datatype]))
    assert found.data.dtype == NUMPY[datatype]


def test_long_text_is_read_as_it_was_sent():
    message = message_of("BYTES", TEXTS, "bytes_contents")
    assert decode(message.SerializeToString()).data.tolist() == TEXTS


@pytest.mark.parametrize("seed", range(20))
def test_pieces_mean_together_what_the_message_does(seed: int):
    rng = random.Random(seed)
    names = rng.sample(list(NUMBERS.values()), 3)
    message = Contents(
        **{name: rng.choices(values, k=rng.randrange(30_000)) for name, values in names}
    )
    message.bytes_contents.extend(rng.choices([b"", b"ab", b"c" * 200, b"d" * 40_000], k=300))
    data = message.SerializeToString()
    merged = Contents()
    pieces = list(cut(memoryview(data), packed_fields(Contents)))
    for piece in pieces:
        merged.MergeFromString(piece)
    assert merged == message
    assert max(map(len, pieces)) < 100_000


def test_numbers_one_by_one_and_contents_that_come_twice_are_merged():
    values = np.arange(NUMBER_COUNT).tolist()
    ones = bytearray()
    for value in values[:1000]:
        ones += b"\x18"  # field 3, a varint
        append_varint(ones, value)
    rest = Contents(int64_contents=values[1000:]).SerializeToString()
    assert decode(contents_of(bytes(ones) + rest)).data.tolist() == values
    twice = Request.FromString(contents_of(bytes(ones)))
    data = twice.SerializeToString()
    inner = twice.inputs[0].SerializeToString() + field(delimited(5), rest)
    front = data[: len(data) - len(field(delimited(5), twice.inputs[0].SerializeToString()))]
    assert decode(front + field(delimited(5), inner)).data.tolist() == values


WRONG = Contents(int64_contents=[1], fp32_contents=[1.0] * 30_000)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (contents_of(WRONG.SerializeToString()), InvalidArgument, "unexpected 'fp32_contents'"),
        (contents_of(b"\x1a\xff\xff\x08" + b"\x80" * 150_000), InternalError, "malformed"),
        (contents_of(b"\x18\x01" * 40_000 + b"\x42\x09a"), InternalError, "ends too early"),
        (contents_of(b"\x18\x01" * 40_000 + b"\x42"), InternalError, "ends too early"),
        (contents_of(b"\x18\x01" * 40_000 + b"\x43\x01"), InternalError, "field tag 0x43"),
        (
            message_of("INT8", [127] * 80_000 + [128], "int_contents").SerializeToString(),
            InvalidArgument,
            "out of the range of INT8",
        ),
        (
            message_of("FP16", [1.0] * 80_000, "fp32_contents").SerializeToString(),
            InvalidArgument,
            "must be sent in raw",
        ),
        (
            field(delimited(5), field(delimited(3), b"\x01" * 80_000)),
            InvalidArgument,
            "more than 32 dims",
        ),
        (field(delimited(5), b"\x18\x01" * 80_000), InvalidArgument, "more than 16384 fields"),
        (
            field(delimited(6), field(delimited(2), b"") * 80_000),
            InvalidArgument,
            "more than 16384 fields",
        ),
    ],
)
def test_what_is_wrong_with_a_long_message_is_told(data: bytes, kind: type, text: str):
    assert len(data) >= LONG_BYTES
    with pytest.raises(kind, match=text):
        RequestDecoder().decode(data)


def test_contents_that_do_not_fill_the_shape_are_told_by_their_size():
    message = message_of("FP32", [1.0] * 40_000)
    message.inputs[0].shape[0] = 7
    found = decode(message.SerializeToString())
    assert (found.data, found.misfit_bytes) == (None, 160_000)


def test_no_damage_crashes_the_reader():
    rng = random.Random(0)
    good = message_of("INT64", [1, 2**40] * 10_000).SerializeToString()
    good += message_of("BYTES", [b"ab", b""] * 10_000, "bytes_contents").SerializeToString()
    for _ in range(200):
        data = bytearray(good)
        for at in rng.sample([*range(60), *range(len(good) - 60, len(good)), 70_000], 3):
            data[at] = rng.randrange(256)
        try:
            rest, contents = without_contents(bytes(data))
            assert len(rest) < len(good)
            for pieces in contents:
                assert pieces is None or sum(1 for _ in pieces) >= 0
        except TuiliError:
            pass


# Turns --------------------------------------------------------------------------------------------


def long_wire() -> Wire:
    """A connection on the running loop, whose long messages come whole."""
    wire = Wire()
    wire.listener.connections.loop = wire.listener.inference.loop = asyncio.get_running_loop()
    wire.transport.pause_reading = lambda: None  # type: ignore[method-assign]
    return wire


async def until(wire: Wire, number: int) -> Any:
    """The reply of a stream that has ended."""
    async with asyncio.timeout(10):
        while not wire.replies.setdefault(number, Reply()).ended:
            wire.sync()
            await asyncio.sleep(0)
    return wire.replies[number]


def raw_texts(**more: Any) -> Any:
    message = Request(
        model_name="identity", raw_input_contents=[encode(np.array(TEXTS, object), "BYTES")], **more
    )
    message.inputs.add(name="x", datatype="BYTES", shape=[len(TEXTS)])
    return message


def named(message: Any) -> Any:
    message.model_name = "identity"
    return message


LONG = {
    "raw text": raw_texts(),
    "text": named(message_of("BYTES", TEXTS, "bytes_contents")),
    "numbers": named(message_of("INT64", list(range(NUMBER_COUNT)))),
}


@pytest.mark.parametrize("message", LONG.values(), ids=LONG)
def test_others_are_answered_while_a_long_message_is_read_and_its_answer_written(message: Any):
    async def check() -> None:
        wire = long_wire()
        other = Wire(beside=wire)
        number = wire.open()
        wire.send(number, framed(message))
        assert other.call(named(message_of("INT32", [1]))).status == 0
        seen = [each.inputs[0].datatype for each in wire.dataplane.requests]
        assert set(seen) == {"INT32"}
        reply = await until(wire, number)
        assert reply.status == 0
        (raw,) = reply.infer().raw_output_contents
        array = decode(message.SerializeToString()).data
        assert raw == encode(array, message.inputs[0].datatype)

    in_loop(check)


def test_a_call_that_is_taken_back_is_not_read_to_its_end():
    async def check() -> None:
        wire = long_wire()
        number = wire.open()
        wire.send(number, framed(raw_texts()))
        wire.client.reset_stream(number)
        wire.sync()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not wire.dataplane.requests
        assert not wire.listener.inference.slices._waiting

    in_loop(check)


def test_an_answer_that_is_not_waited_for_is_not_written_to_its_end():
    async def check() -> None:
        wire = long_wire()
        number = wire.open()
        wire.send(number, framed(raw_texts()))
        async with asyncio.timeout(10):
            while not wire.dataplane.requests:  # noqa: ASYNC110 - as in `running`
                await asyncio.sleep(0)
        wire.client.reset_stream(number)
        wire.sync()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not wire.listener.inference.slices._waiting
        assert not [each for each in wire.frames() if each[0] == frames.DATA]

    in_loop(check)


def test_requests_of_a_stream_keep_their_order_behind_a_long_one():
    async def check() -> None:
        wire = long_wire()
        number = wire.open(STREAM)
        small = named(message_of("INT32", [1], id="3"))
        bad = b"\x0a\xff" + b"a" * LONG_BYTES
        sent = [raw_texts(id="1"), raw_texts(id="2"), small, bad, raw_texts(id="4")]
        for message in sent:
            wire.send(number, framed(message), end=False)
        wire.client.end_stream(number)
        assert not wire.dataplane.requests
        reply = await until(wire, number)
        found = responses(reply.data)
        assert [each.infer_response.id for each in found] == ["1", "2", "3", "", "4"]
        assert [bool(each.error_message) for each in found] == [0, 0, 0, 1, 0]
        assert found[4].infer_response.raw_output_contents[0] == raw_texts().raw_input_contents[0]
        assert reply.status == 0

    in_loop(check)


def test_a_stream_that_is_taken_back_while_a_request_is_read_leaves_nothing():
    async def check() -> None:
        wire = long_wire()
        number = wire.open(STREAM)
        for _ in range(2):
            wire.send(number, framed(raw_texts()), end=False)
        assert wire.connection.room.held_bytes > 2 * LONG_BYTES
        wire.client.reset_stream(number)
        wire.sync()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not wire.dataplane.requests
        assert not wire.listener.inference.slices._waiting
        assert wire.connection.room.held_bytes == 0

    in_loop(check)

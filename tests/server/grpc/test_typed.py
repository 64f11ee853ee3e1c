"""Typed contents are cut out of messages and read as protobuf and the long way read them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.server.grpc.decoding import RequestDecoder
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.typed import cut, raw_of, slots_of
from tuili.server.protocol.datatypes import NUMPY

NUMBERS = {
    "BOOL": ("bool_contents", [True, False, True]),
    "INT8": ("int_contents", [-128, 0, 127]),
    "INT16": ("int_contents", [-(2**15), 1, 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 300, 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 70000, 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 128, 255]),
    "UINT16": ("uint_contents", [0, 300, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 300, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 300, 2**64 - 1]),
    "FP32": ("fp32_contents", [-0.0, 1.5, float("inf")]),
    "FP64": ("fp64_contents", [-0.0, 1e-300, float("nan")]),
}


def message_of(datatype, values, field=None, **more):
    """A request with one input of typed contents."""
    message = INFERENCE["ModelInferRequest"](model_name="m", **more)
    contents = {field or NUMBERS[datatype][0]: values}
    message.inputs.add(name="x", datatype=datatype, shape=[len(values)], contents=contents)
    return message


def way_of(message):
    """What the express way knows after a message that came the long way."""
    request, _ = RequestDecoder().decode(message)
    return cut(message).words, slots_of(request.inputs)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_every_datatype_are_read_as_they_were_sent(datatype):
    values = NUMBERS[datatype][1]
    words, slots = way_of(message_of(datatype, values[::-1]).SerializeToString())
    later = message_of(datatype, values, id="r").SerializeToString()
    found = cut(later)
    assert (found.words, found.ident) == (words, "r")
    assert (
        bytes(raw_of(slots, later, found.contents)) == np.array(values, NUMPY[datatype]).tobytes()
    )


@pytest.mark.parametrize(
    ("datatype", "values", "field"),
    [
        ("INT8", [0, 1, 128], None),
        ("UINT16", [0, 1, 2**16], None),
        ("FP32", [1.0, 2.0, 3.0], "fp64_contents"),
        ("INT32", [1, 2, 3], "int64_contents"),
    ],
)
def test_what_the_long_way_refuses_is_left_to_it(datatype, values, field):
    words, slots = way_of(message_of(datatype, [1, 1, 1]).SerializeToString())
    wrong = message_of(datatype, values, field).SerializeToString()
    found = cut(wrong)
    assert found.words == words
    assert raw_of(slots, wrong, found.contents) is None


@pytest.mark.parametrize("size", [0, 2, 4])
@pytest.mark.parametrize("datatype", ["FP32", "INT64"])
def test_contents_that_do_not_fill_the_shape_are_left_to_the_long_way(datatype, size):
    right = message_of(datatype, [1, 1, 1])
    _, slots = way_of(right.SerializeToString())
    right.inputs[0].ClearField("contents")
    right.inputs[0].contents.SetInParent()
    getattr(right.inputs[0].contents, NUMBERS[datatype][0]).extend([1] * size)
    wrong = right.SerializeToString()
    assert raw_of(slots, wrong, cut(wrong).contents) is None


def test_requests_without_contents_or_with_raw_ones_too_have_no_words():
    both = message_of("FP32", [1.0])
    both.raw_input_contents.append(b"1234")
    raw = message_of("FP32", [1.0])
    raw.inputs.add(name="y", datatype="FP32", shape=[1])
    none = INFERENCE["ModelInferRequest"](model_name="m")
    assert [cut(each.SerializeToString()) for each in (both, raw, none)] == [None] * 3


def test_texts_are_not_cut_out():
    message = message_of("BYTES", [b"a"], "bytes_contents").SerializeToString()
    request, _ = RequestDecoder().decode(message)
    assert slots_of(request.inputs) is None


SENT = message_of("INT32", [1, 2, 300], id="r")
SENT.inputs.add(name="y", datatype="FP32", shape=[2], contents={"fp32_contents": [1.0, 2.0]})
SENT.outputs.add(name="z")
SENT = SENT.SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(SENT) - 1), st.integers(0, 255)), max_size=3))
def test_a_damaged_message_means_the_same_on_both_ways(damage):
    words, slots = way_of(SENT)
    damaged = bytearray(SENT)
    for at, byte in damage:
        damaged[at] = byte
    found = cut(damaged)
    raw = raw_of(slots, damaged, found.contents) if found and found.words == words else None
    if raw is None:
        return
    request, plan = RequestDecoder().decode(bytes(damaged))
    assert b"".join(each.data.tobytes() for each in request.inputs) == bytes(raw)
    assert [each.name for each in request.inputs] == ["x", "y"]
    assert [(each.datatype, each.shape) for each in request.inputs] == [
        ("INT32", (3,)),
        ("FP32", (2,)),
    ]
    assert (request.model, request.id, [each.name for each in plan.outputs]) == (
        "m",
        found.ident,
        ["z"],
    )

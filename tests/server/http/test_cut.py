"""Texts with the same words mean the same but for what was cut out of them."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuili.errors import TuiliError
from tuili.server.http.codec import plan_request
from tuili.server.http.cut import are_right, cut, cut_id, raw_of, slots_of
from tuili.server.http.json_text import parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.protocol.messages import InferRequest, InputTensor

LIMITS = HttpLimits()
TEXT = (
    '{"id": "one", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}]}'
)


def words(text):
    left, arrays = cut(text.encode())
    return *cut_id(left), arrays


def request(text):
    plan = plan_request(parse_json(text.encode(), LIMITS))
    inputs = [InputTensor(each.name, each.datatype, each.shape, each.array) for each in plan.inputs]
    return InferRequest("model", inputs, id=plan.id)


def one(datatype, shape, data, before="", after=""):
    return (
        f'{{"inputs":[{{{before}"name":"x","datatype":"{datatype}","shape":{json.dumps(shape)},'
        f'"data":{data}{after}}}]}}'
    )


@pytest.mark.parametrize(
    ("text", "ident", "arrays"),
    [
        (TEXT, "one", ["[1, 2.5]"]),
        (one("FP32", [2, 1], "[[1],[2]]"), "", ["[[1],[2]]"]),
        (one("FP32", [1], "[1 ] ", after=',"more":[2]'), "", ["[1 ]"]),
        (one("FP32", [1], "[1]", before='"parameters":{"a":[3]},'), "", ["[1]"]),
        (one("BYTES", [1], '["a"]'), "", []),
        ('{"inputs":[]}', "", []),
        ('{"id":"a\\"b","inputs":[]}', "", []),
        ('{"id":"a\x7f","inputs":[]}', "", []),
    ],
)
def test_numbers_and_ids_are_cut_out(text, ident, arrays):
    left, found, numbers = words(text)
    assert found == ident
    assert [each.decode() for each in numbers] == arrays
    assert (left == text.encode()) is not bool(ident or arrays)


@pytest.mark.parametrize(
    "text",
    [
        # Numbers and ids that are not the inputs' and the request's.
        one("FP32", [1], "[1]", before='"parameters":{"data":[3]},'),
        one("FP32", [1], "[1]", before='"parameters":{"id":"a"},'),
        one("FP32", [1], "[1]", after=',"data":[2]'),
        '{"id":"a","id":"b",' + one("FP32", [1], "[1]")[1:],
        one("FP32", [1], "[1]")[:-1] + ',"data":[1]}',
        one("FP32", [1], "[1]")[:-1] + ',"outputs":[{"name":"y","parameters":{"data":[2]}}]}',
    ],
)
def test_words_are_not_kept_where_anything_else_was_cut_out(text):
    left, _, _ = words(text)
    assert not are_right(left, request(text), LIMITS)


def test_words_are_kept_where_only_that_was_cut_out():
    left, _, _ = words(TEXT)
    assert are_right(left, request(TEXT), LIMITS)


NUMBERS = st.one_of(
    st.floats(width=32),
    st.floats(),
    st.integers(-(1 << 70), 1 << 70),
    st.booleans(),
    st.none(),
    st.just("a"),
)
KINDS = ["FP32", "FP64", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL"]


@given(
    st.sampled_from(KINDS),
    st.lists(NUMBERS, min_size=2, max_size=2) | st.lists(st.lists(NUMBERS, max_size=2), max_size=2),
)
def test_numbers_become_what_they_become_the_long_way(datatype, data):
    text = one(datatype, [2], json.dumps(data))
    left, _, arrays = words(text)
    known = words(one(datatype, [2], "[1,2]"))[0]
    assume(left == known)
    slots = slots_of([InputTensor("x", datatype, (2,), None)])
    found = raw_of(slots, arrays, LIMITS)
    try:
        expected = request(text).inputs[0].data
    except TuiliError:
        assert found is None
    else:
        assert found == expected.tobytes()


JUNK = st.text('[]{},"0 .-e\\tf:', max_size=8)
ARRAYS = st.one_of(
    st.just("[3, -4e1]"), st.just("[[3],[4]]"), JUNK, st.tuples(JUNK, JUNK).map("[3,4]".join)
)


@given(ARRAYS, st.one_of(st.just("another"), JUNK))
def test_whatever_has_known_words_is_a_request_of_these_words(numbers, name):
    text = TEXT.replace("[1, 2.5]", numbers).replace("one", name)
    left, ident, arrays = words(text)
    found = raw_of(slots_of([InputTensor("x", "FP32", (2,), None)]), arrays, LIMITS)
    if left != words(TEXT)[0] or found is None:
        return
    asked = request(text)
    assert asked.id == ident
    (tensor,) = asked.inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", "FP32", (2,))
    assert tensor.data.tobytes() == found

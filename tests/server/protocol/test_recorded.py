"""The file of a recorded request."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput
from tuili.server.protocol.recorded import dump, parse, shapes_in, shapes_of

HEAD = (
    b'{"inputs":[{"name":"x","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}}]}'
)


def request(**more):
    x = np.array([[1.5, 2.5]], np.float32)
    text = np.array([b"a", b"\n\0"], object)
    inputs = [InputTensor("x", "FP32", (1, 2), x), InputTensor("t", "BYTES", (2,), text)]
    return InferRequest("m", inputs, **more)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"outputs": [RequestedOutput("y", {"classification": 3})]},
        {"parameters": {"top": 3, "name": "é", "flag": True, "share": 0.5}},
    ],
    ids=["plain", "outputs", "parameters"],
)
def test_what_is_dumped_is_parsed_again(more):
    asked = request(**more)
    found = parse(dump(asked), "m")
    for was, now in zip(asked.inputs, found.inputs, strict=True):
        assert (now.name, now.datatype, now.shape) == (was.name, was.datatype, was.shape)
        np.testing.assert_array_equal(now.data, was.data)
    assert [each.name for each in found.outputs or ()] == [
        each.name for each in asked.outputs or ()
    ]
    assert found.parameters == asked.parameters
    assert shapes_in(dump(asked)) == shapes_of(asked)


def test_a_file_may_be_written_by_hand():
    (tensor,) = parse(HEAD + b"\n\1\0\2\0", "m").inputs
    assert tensor.data.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no line of JSON"),
        (HEAD, "no line of JSON"),
        (b"\x80\n", "first line is not the JSON of a request"),
        (b"[]\n", "first line is not the JSON of a request: Expected `object`"),
        (
            b'{"inputs":[{"name":"x"}]}\n',
            r"missing required field `datatype` - at `\$.inputs\[0\]`",
        ),
        (HEAD + b"\n\1\0\2", "3 bytes lie behind its first line, which tells of 4"),
        (HEAD + b"\n\1\0\2\0\3", "5 bytes lie behind its first line, which tells of 4"),
        (HEAD.replace(b":4", b":-1") + b"\n", "0 bytes lie behind its first line"),
        (HEAD.replace(b"[2]", b"[3]") + b"\n1234", "4 bytes of data, but INT16 .3. takes 6"),
        (HEAD.replace(b"INT16", b"INT17") + b"\n1234", "unknown datatype 'INT17'"),
    ],
)
def test_damaged_files_are_told(data, text):
    with pytest.raises(InvalidArgument, match=text):
        parse(data, "m")
    assert shapes_in(data) is None


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_damage_is_worse_than_an_error(noise, at):
    whole = dump(request())
    with contextlib.suppress(InvalidArgument):
        parse(whole[:at] + noise + whole[at + len(noise) :], "m")

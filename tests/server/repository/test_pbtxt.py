"""config.pbtxt: what is read, and where errors point."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import ParseError
from tuili.server.repository.pbtxt import parse

FULL = """
# A comment
name: "m"  backend: 'onnx' "runtime"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 0x10 ] },
  { name: "s" data_type: TYPE_STRING dims: 1 dims: 2 }
]
output { name: "y" data_type: 11, dims: [ 4 ]; label_filename: "labels.txt" }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy: < timeout_action: DELAY max_queue_size: 5 >
  priority_queue_policy { key: 1 value: { allow_timeout_override: true } }
}
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters { key: "a" value: { string_value: "b\\n\\"c\\"" } }
parameters [ { key: "d" value { string_value: "e" } } ]
version_policy: { all {} }
optimization { execution_accelerators { cpu_execution_accelerator: [ { name: "openvino" } ] } }
"""


def test_a_full_configuration():
    assert parse(FULL)[0] == {
        "name": "m",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 16]},
            {"name": "s", "data_type": "TYPE_STRING", "dims": [1, 2]},
        ],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": [4], "label_filename": "labels.txt"}
        ],
        "dynamic_batching": {
            "preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": 100,
            "default_queue_policy": {"timeout_action": "DELAY", "max_queue_size": 5},
            "priority_queue_policy": {"1": {"allow_timeout_override": True}},
        },
        "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
        "parameters": {"a": {"string_value": 'b\n"c"'}, "d": {"string_value": "e"}},
        "version_policy": {"all": {}},
        "optimization": {
            "execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}
        },
    }


def test_nothing_is_a_configuration_too():
    assert parse("  # nothing\n") == ({}, {})


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('nme: "m"', 1, 1, "ModelConfig has no field 'nme'. Did you mean 'name'?"),
        ('name: "m"\n  max_batch_sze: 8', 2, 3, "Did you mean 'max_batch_size'?"),
        ("input { data_type: TYPE_FLOAT }", 1, 20, "'TYPE_FLOAT' is no DataType."),
        ("max_batch_size: 1.5", 1, 17, "expected a whole number, found '1.5'"),
        ("max_batch_size: ten", 1, 17, "expected a whole number, found 'ten'"),
        ("max_batch_size 8", 1, 16, "expected ':' after 'max_batch_size'"),
        ("input [ {} {} ]", 1, 12, "expected ',' or ']', found '{'"),
        ("input {", 1, 8, "the text ends before '}'"),
        ("name: @", 1, 7, "unexpected character '@'"),
        ('name: "a" name: "b"', 1, 11, "field 'name' is set twice"),
        ("input: 5", 1, 8, "expected '{' to open Input, found '5'"),
        ("5: 5", 1, 1, "expected the name of a field of ModelConfig, found '5'"),
        ("dynamic_batching {} sequence_batching {}", 1, 21, "only one of 'dynamic_batching' and"),
        ("parameters { ky: 1 }", 1, 14, "expected 'key' or 'value', found 'ky'"),
    ],
)
def test_errors_point_at_the_place(text, line, column, message):
    with pytest.raises(ParseError, match="^line") as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in str(caught.value)


def test_the_line_is_shown_with_a_caret():
    with pytest.raises(ParseError, match=r'\n  nme: "m"\n  \^'):
        parse('nme: "m"')


@given(st.text(alphabet=' {}[]<>:,;#"\\abcinput name_1-.\n', max_size=60))
def test_any_text_is_read_or_refused_with_our_error(text):
    with contextlib.suppress(ParseError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"a\n\x1\?", "a\n\x01?"),
        (r"\303\251", "é"),
        ("é", "é"),
        (r"\u00e9\U0001F600", "é\U0001f600"),
        (r"\q", "wrong escape"),
        (r"\u12", "wrong escape"),
        (r"\N{DASH}", "wrong escape"),
        (r"\777", "wrong escape"),
        (r"\uD800", "wrong escape"),
        (r"\U00110000", "wrong escape"),
        (r"\xff", "no text in UTF-8"),
    ],
)
def test_escapes_are_those_of_protobuf_and_mean_bytes(text, found):
    if " " in found:
        with pytest.raises(ParseError, match=found):
            parse(f'name: "{text}"')
    else:
        assert parse(f'name: "{text}"')[0] == {"name": found}


def test_a_map_entry_without_a_key_has_the_default_one():
    assert parse("parameters { value {} }")[0] == {"parameters": {"": {}}}

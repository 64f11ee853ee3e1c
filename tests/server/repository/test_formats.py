"""Configurations in every form: the same meaning, and errors that point at the line."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import InvalidModel
from tuili.server.repository import formats, schema
from tuili.server.repository.config import read

SAME = {
    "config.pbtxt": """
        max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [ 4, -1 ] }
        dynamic_batching { preferred_batch_size: [ 4, 8 ] }
        instance_group { count: 2 }
        parameters { key: "threads" value { string_value: "2" } }
    """,
    "config.yaml": """
max_batch_size: 8
input:
  - {name: x, data_type: FP32, dims: [4, -1]}
dynamic_batching: {preferred_batch_size: [4, 8]}
instance_group: [{count: 2}]
parameters: {threads: 2}
    """,
    "config.toml": """
max_batch_size = 8
input = [{ name = "x", data_type = "TYPE_FP32", dims = [4, -1] }]
instance_group = [{ count = 2 }]
[dynamic_batching]
preferred_batch_size = [4, 8]
[parameters]
threads = 2
    """,
    "config.json": """{
	"maxBatchSize": "8",
	"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4", -1]}],
	"dynamic_batching": {"preferred_batch_size": [4, 8]},
	"instance_group": [{"count": 2}],
	"parameters": {"threads": {"string_value": "2"}}
}""",
}


def in_folder(tmp_path, name, text):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / name).write_text(text)
    return folder


def test_every_form_says_the_same():
    found = {name: formats.parse(SAME[name], name, formats.FILES[name])[0] for name in SAME}
    assert all(raw == found["config.pbtxt"] for raw in found.values())


@pytest.mark.parametrize("name", [*SAME, "config.yml"])
def test_every_form_is_found_in_a_model_folder(tmp_path, name):
    folder = in_folder(tmp_path, name, SAME.get(name, SAME["config.yaml"]))
    config = read(folder)
    assert (config.max_batch_size, config.instances, config.parameters) == (8, 2, {"threads": "2"})


def test_two_files_are_refused(tmp_path):
    folder = in_folder(tmp_path, "config.pbtxt", "")
    (folder / "config.yaml").write_text("")
    with pytest.raises(InvalidModel, match=r"has config.pbtxt and config.yaml; keep one"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        # a field that is not there
        (
            "config.pbtxt",
            'input {\n  name: "x"\n  dim: 4\n}',
            r"line 3, column 3: Input has no field 'dim'",
        ),
        (
            "config.yaml",
            "input:\n  - name: x\n    dim: 4",
            r"line 3, column 5: Input has no field 'dim'",
        ),
        (
            "config.json",
            '{\n\t"maxBatch": 4}',
            r"line 2, column 2: ModelConfig has no field 'maxBatch'",
        ),
        ("config.toml", "name = 'm'\nmax_batch = 4", r"line 2, column 1: ModelConfig has no field"),
        # a value of another kind
        (
            "config.yaml",
            "name: m\nmax_batch_size: four",
            r"line 2, column 1: expected a whole number, found 'four'",
        ),
        (
            "config.json",
            '{"max_batch_size": true}',
            r"column 2: expected a whole number, found True",
        ),
        ("config.yaml", "input: {name: x}", r"line 1, column 1: expected a list of Input"),
        ("config.yaml", "parameters: [1]", r"expected an object of Parameter by name"),
        ("config.yaml", "- 1", "expected ModelConfig, an object of fields"),
        (
            "config.toml",
            "[[instance_group]]\nkind = 'KIND_CPUS'",
            r"line 2, column 1: 'KIND_CPUS' is no .* mean 'KIND_CPU'",
        ),
        # a value that makes no sense
        (
            "config.yaml",
            "max_batch_size: 4\ndynamic_batching:\n  preferred_batch_size: [8]",
            r"line 3, column 3: dynamic batching preferred sizes",
        ),
        (
            "config.pbtxt",
            "max_batch_size: 4\ninstance_group [ { count: -1 } ]",
            r"line 2, column 20: instance_group count",
        ),
        (
            "config.yaml",
            "input:\n- {name: x, data_type: FP32, dims: [0]}",
            r"line 2, column 30: tensor 'x': dims must",
        ),
        ("config.yaml", "name: other", r"line 1, column 1: the configuration is of model 'other'"),
        # what excludes each other, or comes twice
        (
            "config.yaml",
            "dynamic_batching: {}\nsequence_batching: {}",
            r"line 2, column 1: only one of",
        ),
        ("config.yaml", "name: m\nname: m", r"line 2, column 1: 'name' is set twice"),
        (
            "config.json",
            '{"max_batch_size": 1, "maxBatchSize": 2}',
            "'max_batch_size' is set twice",
        ),
        (
            "config.pbtxt",
            'output { name: "y" data_type: 11 }\noutput { name: "y" data_type: 11 }',
            r"line 2, column 8: tensor 'y' is declared twice",
        ),
        # text that cannot be read at all
        ("config.yaml", "name: [m", r"line 1, column 9: expected"),
        ("config.json", '{\n  "name" 1}', r"line 2, column 10: Expecting ':' delimiter"),
        ("config.toml", "name = ", r"config.toml: line 1, column 8: Invalid value"),
        ("config.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_errors_point_at_the_line(tmp_path, name, text, error):
    folder = in_folder(tmp_path, name, text)
    with pytest.raises(InvalidModel, match=error) as told:
        read(folder)
    assert name in str(told.value)


def test_a_given_configuration_is_called_so(tmp_path):
    with pytest.raises(InvalidModel, match="the given config of 'm': line 1, column 2: "):
        read(tmp_path / "m", '{"inputs": []}')


_KEYS = st.sampled_from(["name", "input", "max_batch_size", "dims", "parameters", "x"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


def test_a_given_configuration_may_leave_quotes_away_as_in_protobuf(tmp_path):
    given_text = """{"max_batch_size": 8, 'backend': 'identity',
\t"sequence_batching": {iterative_sequence: true, direct: {"minimum_slot_utilization": 1.0}}}"""
    found = read(tmp_path, given_text).raw
    assert found["backend"] == "identity"
    assert found["sequence_batching"]["iterative_sequence"] is True
    assert found["sequence_batching"]["direct"] == {"minimum_slot_utilization": 1.0}


@pytest.mark.parametrize("text", ["max_batch_size: 8", '"a": {"b": {{"c": 1}}}', "{a: {{b}: c}}"])
def test_a_given_configuration_that_is_no_such_json_is_refused(tmp_path, text):
    with pytest.raises(InvalidModel, match="the given config of"):
        read(tmp_path, text)


@given(_VALUES)
def test_any_json_is_read_or_refused_with_our_error(value):
    text = json.dumps(value)
    for reader in (formats.read_json, formats.read_yaml):
        try:
            raw, source = formats.parse(text, "config", reader)
        except InvalidModel:
            continue
        assert isinstance(raw, dict)
        assert source.name == "config"


@pytest.mark.parametrize("there", ["a link that leads nowhere", "a folder"])
def test_what_is_no_file_is_not_taken_for_no_configuration(tmp_path, there):
    path = tmp_path / "m" / "config.yaml"
    path.parent.mkdir()
    if there == "a folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(InvalidModel, match=r"config.yaml cannot be read"):
        read(path.parent)


def test_of_a_long_line_what_is_near_the_mistake_is_shown(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text("input { } " * 5000 + "naem: 5")
    with pytest.raises(InvalidModel, match=r"naem: 5\n +\^") as caught:
        read(tmp_path / "m")
    assert len(str(caught.value)) < 600


def test_a_byte_order_mark_is_no_character_of_the_configuration(tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text("\ufeff" + SAME[path.name], encoding="utf-8")
    assert formats.read(path)[0]["max_batch_size"] == 8


def test_a_pipe_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "config.pbtxt")
    with pytest.raises(InvalidModel, match="cannot be read: it is no file"):
        formats.read(tmp_path / "config.pbtxt")


def _whole_numbers(message="ModelConfig", above=()):
    """The ways to all fields of whole numbers that may not be negative, with maps at key 1."""
    for name in schema.MESSAGES[message]:
        how, kind = schema.field_type(message, name)
        step = {"many": (name, 0), "one": (name,)}.get(how, (name, "1"))
        if kind.startswith("uint"):
            yield (*above, *step)
        elif kind in schema.MESSAGES and kind not in above:
            yield from _whole_numbers(kind, (*above, *step))


def _nested(way, value):
    for step in reversed(way):
        value = [value] if step == 0 else {step: value}
    return value


@pytest.mark.parametrize("number", [-1, 1 << 64, 1.5, "-1", float("nan")])
@pytest.mark.parametrize("way", list(_whole_numbers()), ids=str)
def test_a_size_or_a_time_is_a_whole_number_of_at_least_0(way, number):
    text = json.dumps(_nested(way, number), indent=1)
    with pytest.raises(InvalidModel, match=r"c\.json: line \d+, column \d+: expected (a whole|at)"):
        formats.parse(text, "c.json", formats.read_json)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max_batch_size: 010", {"max_batch_size": 8}),
        ("max_batch_size: 0x10", {"max_batch_size": 16}),
        ("dynamic_batching { max_queue_delay_microseconds: -1 }", "of at least 0, found '-1'"),
        ("max_batch_size: 5000000000", "expected at most 2147483647"),
        ("max_batch_size: 09", "expected a whole number"),
    ],
)
def test_whole_numbers_in_protobuf_text(text, found):
    if isinstance(found, str):
        with pytest.raises(InvalidModel, match=found):
            formats.parse(text, "config.pbtxt", formats.FILES["config.pbtxt"])
    else:
        assert formats.parse(text, "config.pbtxt", formats.FILES["config.pbtxt"])[0] == found


def test_json_of_protobuf_has_numbers_for_enums_nulls_and_whole_floats():
    text = '{"input": [{"name": "x", "dataType": 11, "dims": [1.0, "2"], "reshape": null}]}'
    found, _ = formats.parse(text, "c.json", formats.read_json)
    assert found == {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [1, 2]}]}

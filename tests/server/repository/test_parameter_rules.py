"""What the entries of `parameters` that tuili reads may say."""

import pytest

from tuili.errors import InvalidModel
from tuili.server.repository import formats
from tuili.server.repository.config import from_json
from tuili.server.repository.model_parameters import MODEL_PARAMETERS
from tuili.server.repository.parameter_rules import RULES

# Those that are words which their readers know, the names of models, or of files.
_WORDS = {"executor", "precision", "degrade_to"}
FITTING = {
    "isolation": ["auto", "process", "none"],
    "threads": ["0", "1", "8"],
    "idempotent": ["true", "false"],
    "batch_buckets": ["", "1", "1,4, 16"],
    "length_buckets": ["", "32,64"],
    "pad_value.x": ["0", "-1", "1e-3", "-inf"],
    "max_concurrency": ["0", "10"],
    "max_client_concurrency": ["0", "10"],
    "degrade_cached": ["true", "false"],
    "cpu_cores": ["", "0", "0-3;4,5"],
    "max_instances": ["1", "4"],
}
NUMBERS = ["0", "1", "2.5", "1e3"]
UNFIT = {
    "isolation": ["", "host"],
    "threads": ["-1", "two", "1.5", "100000", ""],
    "idempotent": ["maybe", "1"],
    "batch_buckets": ["0", "-1", "1;4", "a"],
    "length_buckets": ["0", "-1", "1.5"],
    "pad_value.x": ["nan", "none", ""],
    "max_concurrency": ["-1", "1.5", "nan", ""],
    "max_client_concurrency": ["-1", "many"],
    "degrade_cached": ["", "yes"],
    "cpu_cores": ["-1", "3-0", "first", "0;", "0-"],
    "max_instances": ["0", "-1", "1.5"],
}
NONSENSE = ["-1", "-0.001", "nan", "inf", "1e300", "many", ""]
NAMES = [f"{name}.x" if name == "pad_value" else name for name in RULES]


def read(name, text):
    raw, source = formats.parse(
        f'name: "m"\nparameters {{ key: "{name}" value: {{ string_value: "{text}" }} }}\n',
        "config.pbtxt",
        formats.FILES["config.pbtxt"],
    )
    return from_json("m", raw, source)


def test_every_entry_that_tuili_reads_has_a_rule_or_a_reader_of_words():
    assert set(RULES) | _WORDS == set(MODEL_PARAMETERS)


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name in NAMES for text in FITTING.get(name, NUMBERS)]
)
def test_what_fits_is_taken(name, text):
    assert read(name, text).parameters == {name: text}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name in NAMES for text in UNFIT.get(name, NONSENSE)]
)
def test_what_does_not_fit_is_refused_with_its_place_and_what_is_allowed(name, text):
    allowed = RULES[name.partition(".")[0]][1]
    with pytest.raises(InvalidModel) as refused:
        read(name, text)
    told = str(refused.value)
    assert told.startswith("config.pbtxt: line 2, column ")
    assert f"parameter {name!r} must be {allowed}, got {text!r}" in told

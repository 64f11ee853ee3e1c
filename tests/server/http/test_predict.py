from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.server.http.wire import Wire
from tuili.errors import InvalidArgument
from tuili.server.http.predict import by_columns, by_rows
from tuili.server.http.predict_values import read_tensor
from tuili.server.protocol.datatypes import NUMPY, TURN_ELEMENTS
from tuili.server.protocol.messages import InferResponse, InputTensor, OutputTensor
from tuili.server.steps import at_once

ONES = [1] * 16
PAIR = {"INPUT0": ONES, "INPUT1": ONES}


def tensor_of(name: str, datatype: str, value: Any) -> InputTensor:
    return at_once(read_tensor(name, datatype, value))


def columns(*outputs: OutputTensor) -> Any:
    return json.loads(b"".join(at_once(by_columns(InferResponse("m", "1", list(outputs))))))


def rows(count: int, *outputs: OutputTensor) -> Any:
    return json.loads(b"".join(at_once(by_rows(count, InferResponse("m", "1", list(outputs))))))


@pytest.mark.parametrize(
    ("path", "document", "expected"),
    [
        ("identity", {"instances": [ONES, ONES]}, {"predictions": [ONES, ONES]}),
        ("identity", {"instances": [{"INPUT": ONES}]}, {"predictions": [ONES]}),
        ("identity", {"inputs": [ONES]}, {"outputs": [ONES]}),
        ("identity", {"inputs": {"INPUT": [ONES]}}, {"outputs": [ONES]}),
        ("identity", {"signature_name": "serving_default", "inputs": 2.5}, {"outputs": 2.5}),
        ("identity/versions/1", {"inputs": [[1, 2]]}, {"outputs": [[1, 2]]}),
        (
            "simple",
            {"instances": [PAIR]},
            {"predictions": [{"OUTPUT0": [2] * 16, "OUTPUT1": [0] * 16}]},
        ),
        (
            "simple",
            {"inputs": {"INPUT0": [ONES], "INPUT1": [ONES]}},
            {"outputs": {"OUTPUT0": [[2] * 16], "OUTPUT1": [[0] * 16]}},
        ),
    ],
)
def test_rows_are_answered_by_rows_and_columns_by_columns(path: str, document: Any, expected: Any):
    assert Wire().call("POST", f"/v1/models/{path}:predict", document).json == expected


def test_what_is_not_finite_goes_both_ways():
    answer = Wire().call(
        "POST", "/v1/models/identity:predict", b'{"instances": [[NaN, Infinity, -Infinity, 1]]}'
    )
    assert answer.body == b'{"predictions":[[NaN,Infinity,-Infinity,1.0]]}'


def test_a_label_names_a_version():
    wire = Wire()
    wire.call("POST", "/v1/models/identity/labels/stable:predict", {"inputs": [1]})
    assert wire.dataplane.requests[0].version == "stable"


@pytest.mark.parametrize(
    ("path", "document", "status", "text"),
    [
        ("identity", {}, 400, "expected either 'instances' (rows) or 'inputs' (columns), found no"),
        ("identity", {"instance": [1]}, 400, "found 'instance'"),
        ("identity", {"instances": [1], "inputs": [1]}, 400, "found 'instances', 'inputs'"),
        ("identity", [1], 400, "must be an object"),
        ("identity", {"instances": []}, 400, "at least one row"),
        ("identity", {"instances": {"INPUT": 1}}, 400, "'instances' must be a list"),
        ("identity", {"instances": [1], "signature_name": "x"}, 400, "signature_name 'x'"),
        ("identity", {"instances": [{"INPUT": 1}, {"INPT": 1}]}, 400, "instances[1]: expected"),
        ("identity", {"instances": [{"INPUT": 1}, 2]}, 400, "found int"),
        ("identity", {"instances": [{"INPT": 1}]}, 400, "no input 'INPT'. Did you mean 'INPUT'?"),
        ("identity", {"inputs": {"INPT": 1}}, 400, "no input 'INPT'. Did you mean 'INPUT'?"),
        ("simple", {"instances": [ONES]}, 400, "2 inputs, so values need their names: INPUT0, INP"),
        ("simple", {"instances": [{"INPUT0": ONES}]}, 400, "expected 2 inputs but got 1"),
        ("identity", {"instances": [[1, 2], [3]]}, 400, "at depth 1 differ in length"),
        ("identity", {"instances": [[1], 2]}, 400, "at depth 1 differ in length"),
        ("identity", {"instances": [1, [2]]}, 400, "mixed at depth 1"),
        (
            "identity",
            {"inputs": json.loads("[" * 70 + "1" + "]" * 70)},
            400,
            "input 'INPUT': a shape has 70 dims, expected 32 at most",
        ),
        ("identity", {"instances": ["one"]}, 400, "non-number as double: input 'INPUT' is FP32"),
        ("nope", {"inputs": [1]}, 404, "unknown model: 'nope'"),
        ("repeat", {"instances": [[1]]}, 501, "decoupled"),
        ("identity", b"{", 400, "failed to parse the request JSON"),
    ],
)  # fmt: skip
def test_mistakes_are_told(path: str, document: Any, status: int, text: str):
    answer = Wire().call("POST", f"/v1/models/{path}:predict", document)
    assert (answer.status, text in answer.error) == (status, True), answer.error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/identity", 200),
        ("GET", "/v1/models/identity/versions/1", 200),
        ("GET", "/v1/models/identity/versions/2", 404),
        ("GET", "/v1/models/identity/versions/one", 404),
        ("GET", "/v1/models/nope", 404),
        ("GET", "/v1/models/simple/metadata", 200),
        ("GET", "/v1/models/nope/metadata", 404),
        ("POST", "/v1/models/identity", 405),
        ("POST", "/v1/models/:predict", 405),
    ],
)
def test_routes_of_the_protocol(method: str, path: str, status: int):
    assert Wire().call(method, path).status == status


def test_states_are_told_as_both_protocols_have_them():
    wire = Wire()
    assert wire.call("GET", "/v1/models").json == {"models": ["identity"]}
    ok = {"error_code": "OK", "error_message": ""}
    assert wire.call("GET", "/v1/models/identity").json == {
        "name": "identity",
        "ready": True,
        "model_version_status": [{"version": "1", "state": "AVAILABLE", "status": ok}],
    }


def test_metadata_is_a_signature():
    found = Wire().call("GET", "/v1/models/identity/metadata").json
    assert found["model_spec"] == {"name": "identity", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    dims = [{"size": "-1", "name": ""}, {"size": "16", "name": ""}]
    assert signature["inputs"]["INPUT"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": "INPUT",
    }


@pytest.mark.parametrize("datatype", sorted(set(NUMPY) - {"BYTES"}))
@given(data=st.data())
def test_numbers_come_back_as_they_went(datatype: str, data: st.DataObject):
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, max_side=3))
    kind = np.bool_ if datatype == "BOOL" else np.int8
    values = data.draw(arrays.arrays(kind, shape, elements=st.sampled_from([0, 1]))).tolist()
    tensor = tensor_of("x", datatype, values)
    assert tensor.data is not None
    assert (tensor.shape, tensor.data.dtype) == (shape, NUMPY[datatype])
    found = columns(OutputTensor("y", datatype, shape, tensor.data))
    assert np.asarray(found["outputs"]).tolist() == values


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=4), st.booleans())
def test_bytes_come_back_as_text_where_they_are_text(items: list[bytes], as_bytes: bool):
    coded = [{"b64": base64.b64encode(item).decode()} for item in items]
    tensor = tensor_of("x", "BYTES", coded)
    name = "y_bytes" if as_bytes else "y"
    found = rows(len(items), OutputTensor(name, "BYTES", tensor.shape, tensor.data))
    rows_found = found["predictions"]
    assert [tensor_of("x", "BYTES", row).data.item() for row in rows_found] == items  # type: ignore[union-attr]
    if as_bytes:
        assert rows_found == coded


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"b64": "?"}, "not base64"),
        ({"b64": 1}, 'takes text, or bytes as {"b64": "..."}, not dict'),
        (1, "not int"),
    ],
)
def test_bytes_that_are_none_are_refused(item: Any, text: str):
    with pytest.raises(InvalidArgument, match="input 'x'") as error:
        tensor_of("x", "BYTES", [item])
    assert text in str(error.value)


def test_outputs_without_a_row_for_each_instance_are_told():
    with pytest.raises(InvalidArgument, match=r"shape \[3\], which are not 2 rows"):
        rows(2, OutputTensor("y", "FP32", (3,), np.zeros(3, np.float32)))


@pytest.mark.parametrize("path", ["identity", "identity/versions/1", "identity/labels/stable"])
@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_who_asks_for_what_takes_examples_hears_what_to_use(path: str, verb: str):
    answer = Wire().call("POST", f"/v1/models/{path}:{verb}", {"examples": [{"x": 1}]})
    assert answer.status == 501
    assert "to predict instead" in answer.error


@pytest.mark.parametrize(
    "shape",
    [
        (TURN_ELEMENTS * 3,),
        (5000, 3, 2),
        (3, TURN_ELEMENTS + 5),
        (2, 3, TURN_ELEMENTS + 1),
        (50_000, 0),
    ],
)
@pytest.mark.parametrize("datatype", ["INT32", "BYTES", "FP32"])
def test_long_answers_are_written_as_short_ones(shape: tuple[int, ...], datatype: str):
    count = int(np.prod(shape))
    numbers = np.arange(count).reshape(shape).astype(NUMPY[datatype])
    texts = np.array([b"%d" % at for at in range(count)], object).reshape(shape)
    array = texts if datatype == "BYTES" else numbers
    expected = array.astype(str).tolist() if datatype == "BYTES" else array.tolist()
    if datatype == "FP32" and count:
        array[(0,) * len(shape)] = np.nan
        expected = json.loads(json.dumps(array.tolist()))
    first = OutputTensor("a", datatype, shape, array)
    second = OutputTensor("b", "INT8", shape[:1], np.ones(shape[:1], np.int8))
    assert str(columns(first)["outputs"]) == str(expected)
    assert str(rows(shape[0], first)["predictions"]) == str(expected)
    found = rows(shape[0], first, second)["predictions"]
    assert str(found) == str([{"a": each, "b": 1} for each in expected])

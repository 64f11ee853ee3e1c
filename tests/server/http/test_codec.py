from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.http.wire import Wire, binary_infer, request
from tuili.errors import InvalidArgument
from tuili.server.http.json_text import parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.http.negotiation import choose_coding

BINARY = {"binary_data_output": True}


def tensor(datatype: str, shape: list[int], data: Any = None, **parameters: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": "INPUT", "datatype": datatype, "shape": shape}
    if data is not None:
        entry["data"] = data
    if parameters:
        entry["parameters"] = parameters
    return entry


def infer(document: Any, data: bytes = b"", model: str = "identity", **headers: str) -> Any:
    return Wire().answer(binary_infer(document, data, model, **headers))


def sent_array(document: Any, data: bytes = b"") -> Any:
    wire = Wire()
    answer = wire.answer(binary_infer(document, data))
    assert answer.status == 200, answer.body
    return wire.dataplane.requests[0].inputs[0].data


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("BOOL", np.bool_),
        ("UINT8", np.uint8),
        ("UINT16", np.uint16),
        ("UINT32", np.uint32),
        ("UINT64", np.uint64),
        ("INT8", np.int8),
        ("INT16", np.int16),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("FP16", np.float16),
        ("BF16", ml_dtypes.bfloat16),
        ("FP32", np.float32),
        ("FP64", np.float64),
    ],
)
def test_every_datatype_travels_as_bytes(datatype: str, dtype: Any):
    array = np.arange(6).astype(dtype).reshape(2, 3)
    raw = array.tobytes()
    document = {
        "inputs": [tensor(datatype, [2, 3], binary_data_size=len(raw))],
        "parameters": BINARY,
    }
    wire = Wire()
    answer = wire.answer(binary_infer(document, raw))
    received = wire.dataplane.requests[0].inputs[0].data
    assert received.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(received, array)
    size = int(answer.headers["inference-header-content-length"])
    assert answer.body[size:] == raw
    assert json.loads(answer.body[:size])["outputs"] == [
        {
            "name": "OUTPUT", "datatype": datatype, "shape": [2, 3],
            "parameters": {"binary_data_size": len(raw)},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("datatype", "data", "expected"),
    [
        ("BOOL", [True, False], np.array([True, False])),
        ("UINT8", [0, 255], np.array([0, 255], np.uint8)),
        ("INT8", [-128, 127], np.array([-128, 127], np.int8)),
        ("INT32", [[1], [-2]], np.array([1, -2], np.int32)),
        ("INT64", [-(1 << 63), (1 << 63) - 1], np.array([-(1 << 63), (1 << 63) - 1], np.int64)),
        ("UINT64", [1, (1 << 64) - 1], np.array([1, (1 << 64) - 1], np.uint64)),
        ("FP32", [1, 2.5], np.array([1, 2.5], np.float32)),
        ("FP64", [0.1, -0.0], np.array([0.1, -0.0])),
    ],
)
def test_json_data_is_read_and_written(datatype: str, data: Any, expected: Any):
    wire = Wire()
    answer = wire.call(
        "POST", "/v2/models/identity/infer", {"inputs": [tensor(datatype, [2], data)]}
    )
    assert answer.status == 200, answer.body
    received = wire.dataplane.requests[0].inputs[0].data
    assert received.dtype == expected.dtype
    np.testing.assert_array_equal(received, expected)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["outputs"][0]["data"] == expected.tolist()


def test_text_travels_in_json_and_in_bytes():
    wire = Wire()
    data = ["", "é", "a\u0000b"]
    answer = wire.call(
        "POST", "/v2/models/identity/infer", {"inputs": [tensor("BYTES", [3], data)]}
    )
    assert answer.json["outputs"][0]["data"] == data
    raw = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in data)
    document = {"inputs": [tensor("BYTES", [3], binary_data_size=len(raw))], "parameters": BINARY}
    answer = wire.answer(binary_infer(document, raw))
    assert answer.body.endswith(raw)
    assert wire.dataplane.requests[1].inputs[0].data.tolist() == [text.encode() for text in data]


def test_bytes_that_are_no_text_have_no_json_form():
    raw = b"\x01\x00\x00\x00\xff"
    answer = infer({"inputs": [tensor("BYTES", [1], binary_data_size=5)]}, raw)
    assert (answer.status, "not UTF-8" in answer.error) == (400, True)


def test_a_byte_order_mark_means_nothing():
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', HttpLimits()) == {"a": 1}


def test_nan_and_infinity_are_accepted_and_written():
    wire = Wire()
    entry = b'{"name":"INPUT","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}'
    body = b'{"inputs":[' + entry + b"]}"
    answer = wire.call("POST", "/v2/models/identity/infer", body)
    assert b"[NaN,Infinity,-Infinity]" in answer.body
    np.testing.assert_array_equal(
        wire.dataplane.requests[0].inputs[0].data, np.array([np.nan, np.inf, -np.inf], np.float32)
    )


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 63, 64, 65, 90])
@pytest.mark.parametrize("values", [[1, 2], list(range(20_000))], ids=["short", "long"])
def test_data_may_be_nested_as_deep_as_json_and_deeper_than_arrays(depth: int, values: list[int]):
    data: Any = values
    for _ in range(depth - 1):
        data = [data]
    found = sent_array({"inputs": [tensor("INT32", [len(values)], data)]})
    np.testing.assert_array_equal(found, np.array(values, np.int32))


def test_empty_tensors_are_tensors():
    assert sent_array({"inputs": [tensor("FP32", [0, 4], binary_data_size=0)]}).shape == (0, 4)
    assert sent_array({"inputs": [tensor("INT32", [0], [])]}).shape == (0,)
    assert sent_array({"inputs": [tensor("BYTES", [0], [])]}).shape == (0,)


def test_several_binary_inputs_follow_each_other():
    wire = Wire()
    document = {
        "inputs": [
            tensor("INT32", [2], binary_data_size=8),
            tensor("INT32", [1], [5]),
            tensor("BYTES", [1], binary_data_size=5),
            tensor("UINT8", [3], binary_data_size=3),
        ]
    }
    for index, entry in enumerate(document["inputs"]):
        entry["name"] = f"INPUT{index}"
    data = np.array([7, 8], np.int32).tobytes() + b"\x01\0\0\0z" + b"\x01\x02\x03"
    assert wire.answer(binary_infer(document, data)).status == 200
    arrays = [item.data.tolist() for item in wire.dataplane.requests[0].inputs]
    assert arrays == [[7, 8], [5], [b"z"], [1, 2, 3]]


def test_each_output_may_choose_its_form():
    document = {
        "id": "q",
        "inputs": [
            {**tensor("INT32", [1], [1]), "name": "INPUT0"},
            {**tensor("INT32", [1], [2]), "name": "INPUT1"},
        ],
        "outputs": [
            {"name": "OUTPUT1", "parameters": {"binary_data": False}},
            {"name": "OUTPUT0"},
        ],
        "parameters": {"binary_data_output": True, "mine": 1.5},
    }
    wire = Wire()
    answer = wire.answer(request("POST", "/v2/models/simple/infer", document))
    size = int(answer.headers["inference-header-content-length"])
    reply = json.loads(answer.body[:size])
    assert reply["id"] == "q"
    assert [entry["name"] for entry in reply["outputs"]] == ["OUTPUT1", "OUTPUT0"]
    assert reply["outputs"][0]["data"] == [-1]
    assert answer.body[size:] == np.array([3], np.int32).tobytes()
    sent = wire.dataplane.requests[0]
    assert sent.parameters == {"mine": 1.5}
    assert [item.parameters for item in sent.outputs] == [None, None]


def test_what_the_data_plane_needs_passes_through():
    wire = Wire()
    shm = {"shared_memory_region": "r", "shared_memory_offset": 8, "shared_memory_byte_size": 64}
    document = {
        "id": "7",
        "inputs": [tensor("FP32", [1, 16], **shm)],
        "outputs": [{"name": "OUTPUT", "parameters": {"classification": 3, "binary_data": True}}],
        "parameters": {"sequence_id": "s", "sequence_start": True, "priority": 2, "timeout": 100},
    }
    wire.feed(request("POST", "/v2/models/held/versions/3/infer", document))
    sent = wire.dataplane.requests[0]
    assert (sent.model, sent.version, sent.id) == ("held", "3", "7")
    assert sent.inputs[0].data is None
    assert sent.inputs[0].parameters == shm
    assert sent.outputs[0].parameters == {"classification": 3}
    assert sent.parameters == document["parameters"]


def test_a_plan_is_remembered_but_requests_do_not_share_their_parameters():
    wire = Wire()
    document = {
        "inputs": [tensor("FP32", [1], binary_data_size=4)],
        "parameters": {"mine": 1},
    }
    for value in (1.0, 2.0):
        wire.answer(binary_infer(document, np.float32(value).tobytes()))
        wire.dataplane.requests[-1].parameters["changed"] = True
    first, second = wire.dataplane.requests
    assert (first.inputs[0].data.item(), second.inputs[0].data.item()) == (1.0, 2.0)
    assert first.parameters is not second.parameters


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "must be an object"),
        ({}, "Unable to parse 'inputs'"),
        ({"inputs": 3}, "Unable to parse 'inputs'"),
        ({"inputs": [3]}, "Unable to parse 'inputs'"),
        ({"inputs": [], "id": 3}, "Unable to parse 'id'"),
        ({"inputs": [{"name": "A", "shape": [1], "data": [1]}]}, "Unable to parse 'datatype'"),
        ({"inputs": [{"datatype": "FP32", "shape": [1], "data": [1]}]}, "Unable to parse 'name'"),
        ({"inputs": [{"name": "A", "datatype": "FP32", "data": [1]}]}, "Unable to parse 'shape'"),
        ({"inputs": [tensor("FP32", [-1], [1])]}, "Unable to parse 'shape'"),
        ({"inputs": [tensor("FP32", [1.0], [1])]}, "Unable to parse 'shape'"),
        ({"inputs": [tensor("FP32", [True], [1])]}, "Unable to parse 'shape'"),
        ({"inputs": [tensor("FP32", [1 << 62, 4], [1])]}, "causes total element count to exceed"),
        ({"inputs": [tensor("FP32", [1 << 61], [1])]}, "byte size overflow for input"),
        ({"inputs": [tensor("FP32", [0, 1 << 62, 4], [])]}, "4] has too many elements"),
        ({"inputs": [tensor("FP64", [0, 1 << 60], [])]}, "6] has too many elements"),
        (
            {"inputs": [tensor("FP32", [1] * 33, [1])]},
            "33 dims, expected 32 at most",
        ),
        ({"inputs": [tensor("FP99", [1], [1])]}, "invalid datatype"),
        ({"inputs": [tensor("FP32", [1])]}, "no field is set"),
        (
            {"inputs": [tensor("FP32", [1], [1], binary_data_size=4)]},
            "set 'data' 'binary_data_size'",
        ),
        ({"inputs": [tensor("FP32", [1], 1)]}, "Unable to parse 'data'"),
        ({"inputs": [tensor("FP32", [2], [1])]}, "Shape does not match true shape of 'data' field"),
        ({"inputs": [tensor("FP32", [1], ["1"])]}, "non-number as double"),
        ({"inputs": [tensor("FP32", [1], [None])]}, "non-number as double"),
        ({"inputs": [tensor("FP32", [1], [{}])]}, "non-number as double"),
        ({"inputs": [tensor("FP32", [1], [True])]}, "non-number as double"),
        ({"inputs": [tensor("BOOL", [1], [1])]}, "non-boolean as boolean"),
        ({"inputs": [tensor("INT32", [1], [1.5])]}, "non-signed-integer as signed-integer"),
        ({"inputs": [tensor("INT8", [1], [128])]}, "out of the range of INT8"),
        ({"inputs": [tensor("UINT32", [1], [-1])]}, "out of the range of UINT32"),
        ({"inputs": [tensor("UINT64", [1], [1 << 64])]}, "UINT64"),
        ({"inputs": [tensor("INT64", [1], [1 << 63])]}, "INT64"),
        ({"inputs": [tensor("BYTES", [1], [1])]}, "non-string as string"),
        ({"inputs": [tensor("FP16", [1], [1])]}, "receiving FP16 data via JSON is not supported"),
        ({"inputs": [tensor("BF16", [1], [1])]}, "receiving BF16 data via JSON is not supported"),
        ({"inputs": [tensor("FP32", [1], binary_data_size=3)]}, "unexpected byte size 3"),
        ({"inputs": [tensor("FP32", [1], binary_data_size=-4)]}, "binary_data_size"),
        ({"inputs": [tensor("FP32", [1], binary_data_size="4")]}, "binary_data_size"),
        ({"inputs": [tensor("FP32", [1], binary_data_size=4)]}, "expecting 4 additional bytes"),
        ({"inputs": [tensor("FP32", [1], [1])] * 2}, "input 'INPUT' already exists"),
        ({"inputs": [], "parameters": 3}, "attempt to get members for non-object"),
        ({"inputs": [], "parameters": {"binary_data_output": 1}}, "binary_data_output"),
        ({"inputs": [], "parameters": {"triton_x": 1}}, "are reserved for Triton"),
        ({"inputs": [], "parameters": {"x": []}}, "parameter 'x' has invalid type"),
        ({"inputs": [], "parameters": {"priority": -1}}, "Unable to parse 'priority'"),
        ({"inputs": [], "parameters": {"timeout": "1"}}, "Unable to parse 'timeout'"),
        ({"inputs": [], "parameters": {"sequence_id": 1.5}}, "Unable to parse 'sequence_id'"),
        ({"inputs": [], "parameters": {"sequence_start": 1}}, "Unable to parse 'sequence_start'"),
        ({"inputs": [], "outputs": {}}, "Unable to parse 'outputs'"),
        ({"inputs": [], "outputs": [1]}, "Unable to parse 'outputs'"),
        ({"inputs": [], "outputs": [{}]}, "Unable to parse 'name'"),
        ({"inputs": [], "outputs": [{"name": "A"}, {"name": "A"}]}, "already exists"),
        (
            {"inputs": [], "outputs": [{"name": "A", "parameters": {"binary_data": 1}}]},
            "binary_data",
        ),
        (
            {"inputs": [], "outputs": [{"name": "A", "parameters": {"classification": -1}}]},
            "classification",
        ),
        (
            {
                "inputs": [],
                "outputs": [
                    {
                        "name": "A",
                        "parameters": {"shared_memory_region": "r", "classification": 1},
                    }
                ],
            },
            "can't set both",
        ),
        (
            {
                "inputs": [],
                "outputs": [
                    {"name": "A", "parameters": {"shared_memory_region": "r", "binary_data": True}}
                ],
            },
            "can't set both",
        ),
    ],
)
def test_a_clients_mistake_is_a_400_that_says_what(document: Any, text: str):
    answer = infer(document)
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"", {"Content-Length": "0"}, "failed to parse the request JSON"),
        (b"{", {}, "failed to parse the request JSON"),
        (b'{"a": NaNo}', {}, "failed to parse the request JSON"),
        (b"\xff\xfe", {}, "failed to parse the request JSON"),
        (b"[" * 101 + b"]" * 101, {}, "nesting depth"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, "in range (0, 2), got: 3"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, "in range (0, 2), got: -1"),
        (b"{}", {"Inference-Header-Content-Length": "x"}, "in range (0, 2), got: x"),
        (b"{}", {"Inference-Header-Content-Length": "99999999999999999999"}, "in range (0, 2)"),
        (b'{"inputs":[]}xx', {"Inference-Header-Content-Length": "13"}, "additional input data"),
        (b"{}", {"Content-Encoding": "gzip"}, "failed to decompress"),
        (gzip.compress(b"{}", mtime=0)[:-1], {"Content-Encoding": "gzip"}, "ends too early"),
        (gzip.compress(b"{}", mtime=0) + b"x", {"Content-Encoding": "gzip"}, "after its end"),
        (gzip.compress(bytes(70 << 20), mtime=0), {"Content-Encoding": "gzip"}, "exceeds"),
    ],
)
def test_bad_bodies_are_refused(body: bytes, headers: dict[str, str], text: str):
    answer = Wire().call("POST", "/v2/models/identity/infer", body, headers)
    assert answer.status == 400
    assert text in answer.error


def test_an_unknown_coding_is_a_501_that_names_the_known_ones():
    answer = Wire().call("POST", "/v2/models/identity/infer", b"{}", {"Content-Encoding": "br"})
    assert (answer.status, answer.headers["accept-encoding"]) == (501, "gzip, deflate")


def test_json_above_the_limit_is_refused():
    wire = Wire(HttpLimits(max_json_bytes=100))
    answer = wire.call("POST", "/v2/models/identity/infer", {"inputs": [], "id": "x" * 100})
    assert (answer.status, "exceeds the maximum allowed input size of 100" in answer.error) == (
        400,
        True,
    )


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(coding: str):
    squeeze = gzip.compress if coding == "gzip" else zlib.compress
    data = np.arange(1000, dtype=np.int32)
    document = {
        "inputs": [tensor("INT32", [1000], binary_data_size=4000)],
        "parameters": BINARY,
    }
    text = json.dumps(document).encode()
    answer = Wire().call(
        "POST",
        "/v2/models/identity/infer",
        squeeze(text + data.tobytes()),
        {
            "Content-Encoding": coding,
            "Accept-Encoding": coding,
            "Inference-Header-Content-Length": str(len(text)),
        },
    )
    assert answer.headers["content-encoding"] == coding
    body = zlib.decompress(answer.body, 15 + 32)
    size = int(answer.headers["inference-header-content-length"])
    assert body[size:] == data.tobytes()


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"", b"identity"),
        (b"gzip", b"gzip"),
        (b"deflate, gzip", b"deflate"),
        (b"deflate;q=0.5, gzip;q=0.8, br", b"gzip"),
        (b"gzip;q=0, deflate;q=0", b"identity"),
        (b"identity;q=1, gzip;q=0.5", b"identity"),
        (b"gzip;q=x, deflate;q=0.1", b"deflate"),
        (b"GZIP ; q=0.5", b"gzip"),
        (b"br, *;q=0.1", b"identity"),
    ],
)
def test_the_clients_favourite_coding_is_chosen(accept: bytes, coding: bytes):
    assert choose_coding(accept) == coding


def test_a_raw_request_is_the_only_input():
    wire = Wire()
    data = np.arange(16, dtype=np.float32)
    answer = wire.call(
        "POST",
        "/v2/models/identity/infer",
        data.tobytes(),
        {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    assert answer.status == 200
    assert answer.body.endswith(data.tobytes())
    sent = wire.dataplane.requests[0].inputs[0]
    assert (sent.name, sent.shape) == ("INPUT", (1, 16))


@pytest.mark.parametrize(
    ("model", "size", "text"),
    [
        ("simple", 64, "must only have 1 input (found 1) to be deduced but got 2 inputs"),
    ],
)
def test_a_raw_request_must_fit(model: str, size: int, text: str):
    answer = Wire().call(
        "POST",
        f"/v2/models/{model}/infer",
        bytes(size),
        {"Inference-Header-Content-Length": "0"},
    )
    assert answer.status == 400
    assert text in answer.error


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else "]["


@given(st.integers(0, 140))
def test_depth_is_counted_outside_strings(depth: int):
    text = json.dumps({"[" * 200: nested(depth)}).encode()
    if depth + 1 > 100:
        with pytest.raises(InvalidArgument, match="nesting depth"):
            parse_json(text, HttpLimits())
    else:
        assert parse_json(text, HttpLimits())

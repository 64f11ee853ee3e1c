from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.errors import TooLarge, TuiliError
from tuili.server.grpc.decoding import RequestDecoder
from tuili.server.grpc.encoding import ResponseEncoder, stream_error, wrap_stream_response
from tuili.server.grpc.frames import status_frame
from tuili.server.grpc.methods import METHODS
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.typed import cut
from tuili.server.grpc.varints import MOST_FIELDS
from tuili.server.protocol.datatypes import NUMPY, encode
from tuili.server.protocol.messages import InferRequest, InferResponse, OutputTensor

Request = INFERENCE["ModelInferRequest"]
Response = INFERENCE["ModelInferResponse"]
ONE = np.array([[1.5]], np.float32)


def request(
    *inputs: tuple[str, str, list[int]], raw: list[bytes] | None = None, **fields: Any
) -> Any:
    message = Request(model_name="m", raw_input_contents=raw or [], **fields)
    for name, datatype, shape in inputs:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message


def decode(message: Any) -> InferRequest:
    return RequestDecoder().decode(message.SerializeToString())[0]


@pytest.mark.parametrize("datatype", sorted(set(NUMPY) - {"BYTES"}))
def test_raw_data_of_every_datatype_is_viewed(datatype: str):
    array = np.arange(4).astype(NUMPY[datatype]).reshape(2, 2)
    data = request(("A", datatype, [2, 2]), raw=[array.tobytes()]).SerializeToString()
    found, _ = RequestDecoder().decode(memoryview(data))
    received = found.inputs[0].data
    np.testing.assert_array_equal(received, array)
    assert not received.flags.owndata


def test_text_comes_raw_and_as_contents():
    array = np.array([b"a", b"", b"\xff"], object)
    found = decode(request(("A", "BYTES", [3]), raw=[encode(array, "BYTES")]))
    assert found.inputs[0].data.tolist() == array.tolist()
    message = request(("A", "BYTES", [3]))
    message.inputs[0].contents.bytes_contents.extend(array.tolist())
    assert decode(message).inputs[0].data.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-1, 1]),
        ("INT32", "int_contents", [-1, 1]),
        ("INT64", "int64_contents", [-(1 << 63), 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT32", "uint_contents", [0, (1 << 32) - 1]),
        ("UINT64", "uint64_contents", [0, (1 << 64) - 1]),
        ("FP32", "fp32_contents", [0.5, -1.0]),
        ("FP64", "fp64_contents", [0.1, -1.0]),
    ],
)
def test_typed_contents_are_read(datatype: str, field: str, values: list[Any]):
    message = request(("A", datatype, [2]))
    getattr(message.inputs[0].contents, field).extend(values)
    received = decode(message).inputs[0].data
    assert received.dtype == NUMPY[datatype]
    assert received.tolist() == values


def test_everything_else_of_a_request_is_read():
    message = request(("A", "FP32", [1, 1]), raw=[ONE.tobytes()], id="x", model_version="3")
    message.parameters["i"].int64_param = -1
    message.parameters["u"].uint64_param = 1 << 63
    message.parameters["s"].string_param = "text"
    message.parameters["b"].bool_param = True
    message.parameters["d"].double_param = 0.5
    message.parameters["sequence_id"].int64_param = 7
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    message.inputs.add(name="S", datatype="FP32", shape=[4])
    message.inputs[1].parameters["shared_memory_region"].string_param = "r"
    message.outputs.add(name="O").parameters["classification"].int64_param = 3
    found, plan = RequestDecoder().decode(message.SerializeToString())
    assert (found.model, found.version, found.id) == ("m", "3", "x")
    expected = {"i": -1, "u": 1 << 63, "s": "text", "b": True, "d": 0.5, "sequence_id": 7}
    assert found.parameters == expected
    assert plan.empty_final
    assert found.inputs[1].data is None
    assert found.inputs[1].parameters == {"shared_memory_region": "r"}
    assert found.outputs[0].parameters == {"classification": 3}


def test_the_id_may_stand_anywhere():
    body = request(("A", "FP32", [1, 1])).SerializeToString()
    raw = Request(raw_input_contents=[ONE.tobytes()]).SerializeToString()
    ident = Request(id="x").SerializeToString()
    decoder = RequestDecoder()
    for pieces in ((ident, body, raw), (body, raw, ident), (body, ident, raw), (raw, ident, body)):
        found, _ = decoder.decode(b"".join(pieces))
        assert (found.id, found.inputs[0].data.item()) == ("x", 1.5)
    assert len(decoder._plans) == 1


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (request(("A", "FP99", [1]), raw=[b""]), "invalid datatype 'FP99'"),
        (request(("A", "FP32", [-1]), raw=[b""]), "negative dim"),
        (request(("A", "FP32", [1 << 60, 1 << 60]), raw=[b""]), "too many elements"),
        (request(("A", "FP32", [0, 1 << 62, 4]), raw=[b""]), "too many elements"),
        (request(("A", "BYTES", [0, 1 << 60]), raw=[b""]), "too many elements"),
        (request(("A", "FP32", [1] * 33), raw=[bytes(4)]), "33 dims, expected 32 at most"),
        (request(("A", "FP32", [1]), raw=[]), "unable to find data for input tensor 'A'"),
        (request(("A", "FP32", [1]), raw=[b"1234", b"1234"]), "expected 1 raw_input_contents"),
        (request(("A", "BYTES", [1]), raw=[b"\x05\0\0\0a"]), "string of length 5 but only 1 bytes"),
        (
            request(("A", "BYTES", [1]), raw=[bytes(12)]),
            "unexpected number of string elements 2 for inference input 'A' for model 'm'",
        ),
    ],
)
def test_raw_data_that_does_not_fit_is_refused(message: Any, text: str):
    with pytest.raises(TuiliError, match=text):
        decode(message)


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (request(("A", "FP32", [1]), raw=[b"123"]), 3),
        (Request(inputs=[{"name": "A", "datatype": "FP32", "shape": [2],
                          "contents": {"fp32_contents": [1]}}]), 4),
    ],
)  # fmt: skip
def test_data_of_a_wrong_size_is_left_to_the_signature(message: Any, size: int):
    found = decode(message)
    assert (found.inputs[0].data, found.inputs[0].misfit_bytes) == (None, size)


def contents(datatype: str, shape: list[int], **values: list[Any]) -> Any:
    message = request(("A", datatype, shape))
    for field, items in values.items():
        getattr(message.inputs[0].contents, field).extend(items)
    return message


def both() -> Any:
    message = contents("FP32", [1], fp32_contents=[1])
    message.raw_input_contents.append(ONE.tobytes())
    return message


def mixed() -> Any:
    message = contents("FP32", [1], fp32_contents=[1])
    message.inputs.add(name="B", datatype="FP32", shape=[1])
    return message


def reserved() -> Any:
    message = request()
    message.parameters["triton_x"].bool_param = True
    return message


def valueless() -> Any:
    message = request()
    message.parameters["x"].SetInParent()
    return message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (contents("FP32", [1], int_contents=[1]), "expected 'fp32_contents'"),
        (contents("FP32", [1], fp32_contents=[1], int_contents=[1]), "unexpected 'int_contents'"),
        (contents("INT8", [1], int_contents=[128]), "out of the range of INT8"),
        (contents("FP16", [1], fp32_contents=[1]), "must be sent in raw_input_contents"),
        (contents("BF16", [1], fp32_contents=[1]), "must be sent in raw_input_contents"),
        (both(), "contents field must not be specified when using raw_input_contents"),
        (mixed(), "either all inputs are in raw_input_contents, or none"),
        (reserved(), "reserved for Triton"),
        (valueless(), "invalid value type for 'x' parameter"),
        (request(("A", "FP32", [1]), ("A", "FP32", [1])), "input 'A' already exists"),
        (request(outputs=[{"name": "A"}, {"name": "A"}]), "already exists"),
    ],
)
def test_contents_that_do_not_fit_are_refused(message: Any, text: str):
    with pytest.raises(TuiliError, match=text):
        decode(message)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(data: bytes):
    with suppress(TuiliError):
        RequestDecoder().decode(data)


GOOD = request(("A", "FP32", [1, 1]), raw=[ONE.tobytes()], id="x").SerializeToString()


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_damaged_request_is_refused_or_read(at: int, value: int):
    with suppress(TuiliError):
        RequestDecoder().decode(GOOD[:at] + bytes([value]) + GOOD[at + 1 :])


def response(*arrays: Any, **fields: Any) -> InferResponse:
    outputs = [
        OutputTensor(f"O{index}", "FP32", array.shape, array) for index, array in enumerate(arrays)
    ]
    return InferResponse("m", "1", outputs, **fields)


@pytest.mark.parametrize("size", [0, 1, 100, 10_000])
def test_responses_are_what_protobuf_would_write(size: int):
    array = np.arange(size, dtype=np.float32)
    encoder = ResponseEncoder()
    for ident in ("", "x"):
        parts = encoder.encode(response(array, ONE, array, id=ident))
        message = Response.FromString(b"".join(parts))
        assert (message.model_name, message.model_version, message.id) == ("m", "1", ident)
        assert [output.name for output in message.outputs] == ["O0", "O1", "O2"]
        assert list(message.outputs[1].shape) == [1, 1]
        raw = [bytes(item) for item in message.raw_output_contents]
        assert raw == [array.tobytes(), ONE.tobytes(), array.tobytes()]


def test_parameters_and_shared_memory_outputs_are_described():
    shm = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
    outputs = [
        OutputTensor("S", "FP32", (1,), None, shm),
        OutputTensor("T", "BYTES", (1,), np.array([b"ab"], object)),
    ]
    whole = InferResponse("m", "1", outputs, "i", {"p": True, "q": 2, "r": 0.5, "s": "t"})
    message = Response.FromString(b"".join(ResponseEncoder().encode(whole, {"final": True})))
    assert message.outputs[0].parameters["shared_memory_region"].string_param == "r"
    # Clients find raw data by the position of its output.
    assert list(message.raw_output_contents) == [b"", b"\x02\0\0\0ab"]
    assert message.parameters["p"].bool_param
    assert message.parameters["q"].int64_param == 2
    assert message.parameters["final"].bool_param


def test_stream_messages_wrap_responses_and_errors():
    Stream = INFERENCE["ModelStreamInferResponse"]
    parts = wrap_stream_response(ResponseEncoder().encode(response(ONE)))
    assert Stream.FromString(b"".join(parts)).infer_response.model_name == "m"
    message = Stream.FromString(b"".join(stream_error(InferRequest("m", [], id="i"), "bad", True)))
    assert (message.error_message, message.infer_response.id) == ("bad", "i")
    assert message.infer_response.parameters["triton_final_response"].bool_param


def test_errors_with_halves_of_characters_can_be_told():
    (raw,) = stream_error(InferRequest("m", []), "caf\udce9", True)
    assert INFERENCE["ModelStreamInferResponse"].FromString(raw).error_message == "caf?"
    assert b"grpc-message" in status_frame(1, 13, "caf\udce9", opened=False)


@pytest.mark.parametrize(
    "message",
    [
        Request(raw_input_contents=[b""] * (MOST_FIELDS + 1)),
        Request(inputs=[{"name": "A", "contents": {"int_contents": [1]}}] * (MOST_FIELDS + 1)),
        Request(outputs=[{}] * (MOST_FIELDS + 1)),
    ],
)
def test_more_fields_than_any_request_has_are_not_read(message: Any):
    with pytest.raises(TuiliError, match="more than 16384 fields"):
        decode(message)
    assert cut(message.SerializeToString()) is None


def test_of_two_inputs_that_are_wrong_the_last_is_told_as_in_triton():
    message = request(("A", "BYTES", [1]), ("B", "BYTES", [1]), raw=[b"", b""])
    with pytest.raises(TuiliError, match="expected 1 string elements for inference input 'B'"):
        decode(message)


def test_settings_are_short():
    method = METHODS["/inference.GRPCInferenceService/TraceSetting"]
    with pytest.raises(TooLarge, match="TraceSettingRequest larger than max"):
        method.call(None, bytes(300_000), None, None)  # type: ignore[arg-type]

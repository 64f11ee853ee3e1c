"""TensorFlow Serving's methods over a connection: tensors of every type, errors, states."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.server.grpc.test_long_message import long_wire
from tests.server.grpc.wire import Reply, Wire
from tuili.errors import InvalidArgument
from tuili.server.grpc.encoding import raw_head
from tuili.server.grpc.long_message import LONG_BYTES
from tuili.server.grpc.predict import MODELS, SERVICE
from tuili.server.grpc.predict_tensors import tensor_of, write_tensor
from tuili.server.grpc.schema import SERVING
from tuili.server.protocol.datatypes import NUMPY
from tuili.server.protocol.messages import OutputTensor
from tuili.server.steps import at_once
from tuili.server.tensorflow_serving import TYPES

PREDICT = f"/{SERVICE}/Predict"
# Model 'identity', version 1, [1.5, -2], as the classes of TensorFlow Serving's package write it.
SPEC = "0a1f0a086964656e74697479120208011a0f73657276696e675f64656661756c74"
TENSOR = "160801120812020801120208022a080000c03f000000c0"
ASKED = bytes.fromhex(SPEC + "121f0a05494e50555412" + TENSOR + "1a064f5554505554")
ANSWERED = bytes.fromhex("0a200a064f555450555412" + TENSOR + "12" + SPEC[2:])


def proto_of(output: OutputTensor):
    return SERVING["TensorProto"].FromString(at_once(write_tensor(output)))


def request(model: str, array: np.ndarray | None = None):
    message = SERVING["PredictRequest"]()
    message.model_spec.name = model
    if array is not None:
        message.inputs["INPUT"].CopyFrom(
            proto_of(OutputTensor("INPUT", "FP32", array.shape, array.astype(np.float32)))
        )
    return message


def told(reply: Reply, name: str):
    assert (reply.status, reply.text) == (0, "")
    return SERVING[name].FromString(reply.messages[0])


def in_loop(scenario) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(limited())


async def until(wire: Wire, reply: Reply) -> Reply:
    while not reply.ended:
        await asyncio.sleep(0)
        wire.sync()
    return reply


def test_a_stock_clients_request_is_answered_in_its_own_bytes():
    async def scenario() -> None:
        wire = Wire()
        reply = await until(wire, wire.call(ASKED, PREDICT))
        assert told(reply, "PredictResponse") == SERVING["PredictResponse"].FromString(ANSWERED)
        assert wire.dataplane.requests[0].version == "1"

    in_loop(scenario)


@pytest.mark.parametrize(
    ("message", "status", "text"),
    [
        (request("nope", np.ones(2)), 5, "Request for unknown model: 'nope' is not found"),
        (request("busy", np.ones(2)), 14, "Exceeds maximum queue size"),
        (request(""), 3, "model_spec.name is empty, expected a model's name"),
        (b"\xff", 13, "malformed PredictRequest"),
    ],
)
def test_what_cannot_be_answered_is_a_status(message, status: int, text: str):
    async def scenario() -> None:
        wire = Wire()
        reply = await until(wire, wire.call(message, PREDICT))
        assert reply.status == status
        assert text in reply.text

    in_loop(scenario)


def test_another_signature_is_refused():
    async def scenario() -> None:
        wire, message = Wire(), request("identity", np.ones(2))
        message.model_spec.signature_name = "regress"
        reply = await until(wire, wire.call(message, PREDICT))
        assert (
            reply.text == "signature_name 'regress': the model has one signature, 'serving_default'"
        )

    in_loop(scenario)


def test_a_client_that_goes_away_takes_its_request_back():
    async def scenario() -> None:
        wire = Wire()
        wire.call(request("held", np.ones(2)), PREDICT)
        await wire.dataplane.holding.wait()
        wire.connection.connection_lost(None)
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=5)
        assert wire.dataplane.held[0][0].cancelled

    in_loop(scenario)


def test_the_deadline_of_a_call_is_the_requests():
    async def scenario() -> None:
        wire = Wire()
        reply = wire.call(request("identity", np.ones(2)), PREDICT, grpc_timeout="5S")
        await until(wire, reply)
        now = asyncio.get_running_loop().time()
        assert wire.dataplane.requests[0].deadline == pytest.approx(now + 5, abs=2)

    in_loop(scenario)


@pytest.mark.parametrize("datatype", sorted(TYPES))
def test_a_tensor_of_every_type_comes_back_as_it_was(datatype: str):
    values = [[0, 1, 1], [1, 0, 1]]
    array = np.array(values, NUMPY[datatype])
    if datatype == "BYTES":
        array[...] = np.array([[b"", b"a", b"\xff"], [b"b", b"c", b"d"]], object)
    proto = proto_of(OutputTensor("x", datatype, array.shape, array))
    found = tensor_of("x", SERVING["TensorProto"].FromString(proto.SerializeToString()))
    assert (found.datatype, found.shape) == (datatype, (2, 3))
    np.testing.assert_array_equal(found.data, array)


@pytest.mark.parametrize("datatype", sorted(set(TYPES) - {"BYTES"}))
def test_raw_content_is_read_as_the_bytes_of_its_type(datatype: str):
    array = np.array([1, 0, 1], NUMPY[datatype])
    proto = SERVING["TensorProto"](dtype=TYPES[datatype].number, tensor_content=array.tobytes())
    proto.tensor_shape.dim.add(size=3)
    np.testing.assert_array_equal(tensor_of("x", proto).data, array)


@pytest.mark.parametrize(
    ("given", "read"), [([], [0, 0, 0]), ([5], [5, 5, 5]), ([1, 2], [1, 2, 2])]
)
def test_missing_values_repeat_the_last_one(given: list[int], read: list[int]):
    proto = SERVING["TensorProto"](dtype=TYPES["INT64"].number, int64_val=given)
    proto.tensor_shape.dim.add(size=3)
    np.testing.assert_array_equal(tensor_of("x", proto).data, read)


def test_a_scalar_has_no_dims():
    proto = SERVING["TensorProto"](dtype=TYPES["FP64"].number, double_val=[2.5])
    assert tensor_of("x", proto).data == np.float64(2.5)


@pytest.mark.parametrize(
    ("fields", "dims", "text"),
    [
        ({"dtype": 8}, [1], "input 'x' has the dtype 8, expected one of DT_FLOAT"),
        ({"dtype": 1, "float_val": [1, 2, 3]}, [2], "takes 2 values at most, found 3 in float_val"),
        ({"dtype": 1, "tensor_content": b"123"}, [1], "3 bytes of data, but FP32"),
        ({"dtype": 7, "tensor_content": b"1"}, [1], "strings are expected in string_val"),
        ({"dtype": 6, "int_val": [300]}, [1], "input 'x' has a value out of range"),
        ({"dtype": 1}, [-1], "negative dim"),
        ({"dtype": 1, "tensor_shape": {"unknown_rank": True}}, [], "a shape of unknown rank"),
    ],
)
def test_a_tensor_that_is_none_is_refused(fields, dims: list[int], text: str):
    proto = SERVING["TensorProto"](**fields)
    for size in dims:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(InvalidArgument, match=text):
        tensor_of("x", proto)


def test_metadata_are_the_signature_of_an_export():
    message = SERVING["GetModelMetadataRequest"](metadata_field=["signature_def"])
    message.model_spec.name = "simple"
    reply = told(Wire().call(message, f"/{SERVICE}/GetModelMetadata"), "GetModelMetadataResponse")
    held = reply.metadata["signature_def"]
    assert held.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signature = SERVING["SignatureDefMap"].FromString(held.value).signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert sorted(signature.inputs) == ["INPUT0", "INPUT1"]
    assert signature.outputs["OUTPUT1"].dtype == TYPES["INT32"].number
    assert [dim.size for dim in signature.outputs["OUTPUT1"].tensor_shape.dim] == [-1, 16]
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("simple", 1)


@pytest.mark.parametrize(("fields", "found"), [([], "none"), (["signature_def", "b"], "'b'")])
def test_other_metadata_are_refused(fields: list[str], found: str):
    message = SERVING["GetModelMetadataRequest"](metadata_field=fields)
    message.model_spec.name = "simple"
    reply = Wire().call(message, f"/{SERVICE}/GetModelMetadata")
    assert (reply.status, reply.text) == (
        3, f"metadata_field: expected 'signature_def', found {found}",
    )  # fmt: skip


def test_the_state_of_a_model_is_told_by_version():
    message = SERVING["GetModelStatusRequest"]()
    message.model_spec.name = "identity"
    path = f"/{MODELS}/GetModelStatus"
    (state,) = told(Wire().call(message, path), "GetModelStatusResponse").model_version_status
    assert (state.version, state.state, state.status.error_code) == (1, 30, 0)
    message.model_spec.name = "none"
    assert Wire().call(message, path).text == "Could not find any versions of model 'none'"


@pytest.mark.parametrize("name", ["Classify", "Regress", "MultiInference"])
def test_who_asks_for_what_takes_examples_hears_what_to_use(name: str):
    reply = Wire().call(ASKED, f"/{SERVICE}/{name}")
    assert reply.status == 12
    assert "to predict instead" in reply.text


@pytest.mark.parametrize("datatype", sorted(TYPES))
def test_a_long_tensor_is_read_and_written_while_others_are_answered(datatype: str):
    async def scenario() -> None:
        array = (np.arange(90_000) % 2).astype(NUMPY[datatype])
        if datatype == "BYTES":
            array[:] = [b"%d" % at for at in range(array.size)]
        message = request("identity")
        message.inputs["x"].CopyFrom(proto_of(OutputTensor("x", datatype, array.shape, array)))
        assert len(message.SerializeToString()) >= LONG_BYTES
        wire = long_wire()
        other = Wire(beside=wire)
        reply = wire.call(message, PREDICT)
        assert (
            await until(other, other.call(request("identity", np.ones(2)), PREDICT))
        ).status == 0
        assert not reply.ended
        (output,) = told(await until(wire, reply), "PredictResponse").outputs.values()
        found = tensor_of("x", output)
        assert found.datatype == datatype
        np.testing.assert_array_equal(found.data, array)

    in_loop(scenario)


def test_a_long_tensor_is_read_whatever_the_order_of_its_fields():
    message = request("identity", np.ones(30_000))
    data = message.SerializeToString()
    proto = message.inputs["INPUT"]
    values = SERVING["TensorProto"](float_val=proto.float_val)
    proto.ClearField("float_val")
    assert len(data) > LONG_BYTES
    tensor = values.SerializeToString() + proto.SerializeToString()
    reordered = SERVING["PredictRequest"](model_spec=message.model_spec).SerializeToString()
    name = b"\x0a\x05INPUT"
    value = raw_head(len(tensor), 0x12) + tensor
    reordered += raw_head(len(name) + len(value), 0x12) + name + value
    parse = SERVING["PredictRequest"].FromString
    assert parse(reordered) == parse(data)

    async def scenario() -> None:
        wire = Wire()
        reply = await until(wire, wire.call(reordered, PREDICT))
        (output,) = told(reply, "PredictResponse").outputs.values()
        assert list(output.float_val) == [1.0] * 30_000

    in_loop(scenario)


@pytest.mark.parametrize(
    ("tensor", "status", "text"),
    [
        (b"\x12\x02\x12\x00" * 40_000, 3, "dims, expected 32 at most"),
        (b"\x1a\x00" * 60_000 + b"\x2a\x01\x00", 13, "malformed PredictRequest"),
        (b"\x42\x01a" * 30_000 + b"\x42\x09a", 13, "ends too early"),
        (
            b"\x08\x06\x12\x06\x12\x04\x08\xb0\xea\x01" + b"\x38\xac\x02" * 30_000,
            3,
            "out of range: 300",
        ),
    ],
)
def test_what_is_wrong_with_a_long_tensor_is_told(tensor: bytes, status: int, text: str):
    message = request("identity").SerializeToString()
    value = raw_head(len(tensor), 0x12) + tensor
    message += raw_head(len(value), 0x12) + value

    async def scenario() -> None:
        wire = Wire()
        reply = await until(wire, wire.call(message, PREDICT))
        assert (reply.status, text in reply.text) == (status, True), reply.text

    in_loop(scenario)

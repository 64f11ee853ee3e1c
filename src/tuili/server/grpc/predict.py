"""TensorFlow Serving's gRPC: Predict, and what it tells of models.

tensorflow_serving/apis/prediction_service.proto and model_service.proto. Classify and Regress take
`tf.Example`s, which only a SavedModel knows how to read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from tuili.errors import InternalError, InvalidArgument, TuiliError, Unsupported
from tuili.server.dataplane import DataPlane
from tuili.server.grpc.encoding import raw_head
from tuili.server.grpc.long_message import LONG_BYTES, delimited
from tuili.server.grpc.long_predict import without_tensors
from tuili.server.grpc.predict_tensors import read_tensor, write_tensor
from tuili.server.grpc.schema import SERVING
from tuili.server.grpc.varints import Buffer
from tuili.server.protocol.messages import (
    InferRequest,
    InferResponse,
    InputTensor,
    Origin,
    RequestedOutput,
)
from tuili.server.steps import Found, Steps
from tuili.server.tensorflow_serving import (
    NO_EXAMPLES,
    PREDICT,
    SIGNATURE,
    TYPES,
    check_signature,
    newest_of,
    version_states,
)

SERVICE: Final = "tensorflow.serving.PredictionService"
MODELS: Final = "tensorflow.serving.ModelService"
_FIELD: Final = "signature_def"
_MAP_URL: Final = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
_UNKNOWN: Final = 2  # of tensorflow/core/protobuf/error_codes.proto

# Of a response, and of an entry of a map.
_OUTPUTS: Final = delimited(1)
_KEY, _VALUE = delimited(1), delimited(2)

Message = Any


class InTurns(Protocol):
    """What does long work with turns for others: it gives what that returns, or a promise."""

    def __call__(self, work: Steps[Found], /) -> Found | asyncio.Future[Found]: ...


class Serialized:
    """A response that is bytes already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


async def predict(dataplane: DataPlane, data: Buffer, origin: Origin, in_turns: InTurns) -> Message:
    """Run a model; taken back when the call ends before."""
    read = in_turns(_read(data))
    request = await read if isinstance(read, asyncio.Future) else read
    request.origin = origin
    # grpcio ends a late call itself, by cancelling this.
    request.deadline = getattr(origin, "deadline", None)
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Serialized | asyncio.Future[Serialized]] = loop.create_future()

    def reply(answer: InferResponse | TuiliError) -> None:
        if answered.done():
            return
        try:
            if isinstance(answer, TuiliError):
                raise answer
            answered.set_result(in_turns(_write(answer)))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answered.set_exception(error)

    ticket = dataplane.submit(request, reply)
    try:
        written = await answered
    except asyncio.CancelledError:
        ticket.cancel()
        raise
    return await written if isinstance(written, asyncio.Future) else written


def _read(data: Buffer) -> Steps[InferRequest]:
    is_long = len(data) >= LONG_BYTES
    rest, pieces = without_tensors(bytes(data)) if is_long else (bytes(data), None)
    try:
        message = SERVING["PredictRequest"].FromString(rest)
    except DecodeError as error:
        raise InternalError(f"malformed PredictRequest: {error}") from None
    model, version = _model_of(message)
    if pieces is None:
        pieces = {name: iter((message.inputs[name],)) for name in message.inputs}
    tensors: list[InputTensor] = []
    for name, found in pieces.items():
        tensors.append((yield from read_tensor(name, found)))
    outputs = [RequestedOutput(name) for name in message.output_filter]
    return InferRequest(model, tensors, version, outputs=outputs or None)


def _model_of(message: Message) -> tuple[str, str]:
    """The model that is asked for, and its version or a version's label; "" for the newest."""
    spec = message.model_spec
    if not spec.name:
        raise InvalidArgument("model_spec.name is empty, expected a model's name")
    check_signature(spec.signature_name)
    if spec.WhichOneof("version_choice") == "version":
        return spec.name, str(spec.version.value)
    return spec.name, spec.version_label


def _write(answer: InferResponse) -> Steps[Serialized]:
    """The response, field after field: its tensors are too much for protobuf to write in one go."""
    response = SERVING["PredictResponse"]()
    _name(response.model_spec, answer.model, answer.version)
    parts: list[bytes] = [response.SerializeToString()]
    for output in answer.outputs:
        name = output.name.encode()
        tensor = yield from write_tensor(output)
        key, value = raw_head(len(name), _KEY) + name, raw_head(len(tensor), _VALUE)
        entry = raw_head(len(key) + len(value) + len(tensor), _OUTPUTS)
        parts += (entry, key, value, tensor)
    return Serialized(b"".join(parts))


def _name(spec: Message, model: str, version: str) -> None:
    spec.name, spec.signature_name = model, SIGNATURE
    spec.version.value = int(version or 0)


def metadata(dataplane: DataPlane, message: Message) -> Message | Awaitable[Message]:
    """Inputs and outputs as the `SignatureDef` that a SavedModel of the model would have."""
    model, version = _model_of(message)
    unknown = [field for field in message.metadata_field if field != _FIELD]
    if unknown or not message.metadata_field:
        found = f"'{unknown[0]}'" if unknown else "none"
        raise InvalidArgument(f"metadata_field: expected '{_FIELD}', found {found}")

    def answer() -> Message:
        found = dataplane.model_metadata(model, version)
        response = SERVING["GetModelMetadataResponse"]()
        _name(response.model_spec, model, newest_of(found))
        held = response.metadata[_FIELD]
        held.type_url, held.value = _MAP_URL, _signatures(found).SerializeToString()
        return response

    return dataplane.when_live(model, answer)


def _signatures(found: dict[str, Any]) -> Message:
    signatures = SERVING["SignatureDefMap"]()
    signature = signatures.signature_def[SIGNATURE]
    signature.method_name = PREDICT
    for side in ("inputs", "outputs"):
        for item in found[side]:
            tensor = getattr(signature, side)[item["name"]]
            tensor.name, tensor.dtype = item["name"], TYPES[item["datatype"]].number
            for size in item["shape"]:
                tensor.tensor_shape.dim.add(size=size)
    return signatures


def classify_or_regress(dataplane: DataPlane, message: Message) -> Message:
    """What takes `tf.Example`s."""
    raise Unsupported(NO_EXAMPLES)


def status(dataplane: DataPlane, message: Message) -> Message:
    """The states of a model's versions, newest first."""
    response = SERVING["GetModelStatusResponse"]()
    for each in version_states(dataplane, *_model_of(message)):
        state = response.model_version_status.add(
            version=int(each.version or 0), state=each.state.number
        )
        state.status.error_code = _UNKNOWN if each.reason else 0
        state.status.error_message = each.reason
    return response

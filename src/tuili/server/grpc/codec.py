"""ModelInferRequest bytes to `InferRequest`, and `InferResponse` to ModelInferResponse bytes.

Tensors travel in `raw_input_contents`, which every serializer writes last.  What comes before is
small, is parsed by protobuf and says the same for most requests of a client; so its bytes (less the
request id) are the key of a remembered *plan*, and the tensors become views of the message without
being copied.  Replies are written by hand around them for the same reason.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from tuili.errors import InternalError, InvalidArgument, TuiliError
from tuili.server.grpc.schema import INFERENCE
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, decode_bytes, element_count, encode
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    InputTensor,
    OutputTensor,
    Parameters,
    RequestedOutput,
)
from tuili.server.protocol.parameters import WrongType, check_parameter

Buffer = bytes | bytearray | memoryview

_ID: Final = 0x1A  # field 3, length-delimited
_RAW: Final = 0x3A  # field 7, length-delimited
_DELIMITED: Final = frozenset((0x0A, 0x12, _ID, 0x22, 0x2A, 0x32, _RAW))
_MAX_PLANS: Final = 1024
# What a parameter with a meaning is told to be where it is something else.
_CHOICES: Final = {
    "priority": "int64_param or uint64_param",
    "timeout": "int64_param",
    "sequence_id": "int64_param or string_param",
    "sequence_start": "bool_param",
    "sequence_end": "bool_param",
}
_MAX_PLAN_BYTES: Final = 4096
_SMALL: Final = 16 << 10  # outputs below are joined with what surrounds them

_Request: Final = INFERENCE["ModelInferRequest"]
_Response: Final = INFERENCE["ModelInferResponse"]
_OutputTensor: Final = INFERENCE["ModelInferResponse.InferOutputTensor"]

# InferTensorContents: which field holds the elements of a datatype, and as what.
_CONTENTS: Final = {
    "BOOL": ("bool_contents", np.bool_),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    "BYTES": ("bytes_contents", np.object_),
}


class PlannedInput(msgspec.Struct):
    """One input: `size` bytes of raw data (-1: any, BYTES), or an array that came as contents."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int
    parameters: Parameters | None
    raw: bool
    array: Array | None
    misfit_bytes: int = -1  # of contents that do not fill the shape


class Plan(msgspec.Struct):
    """What a request says beside its id and its raw data."""

    model: str
    version: str
    inputs: list[PlannedInput]
    raw_count: int
    outputs: list[RequestedOutput] | None
    parameters: Parameters | None
    empty_final: bool  # the stream's client wants a last message even when it is empty


def _varint(data: Buffer, at: int) -> tuple[int, int]:
    """The varint at `at` and the place after it."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise InvalidArgument("malformed ModelInferRequest: varint too long")


def _append_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class RequestDecoder:
    """Makes requests of messages; one per front end, since it remembers plans."""

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}
        self._key_size = 0  # of the last request

    def decode(self, message: Buffer) -> tuple[InferRequest, Plan]:
        """The request in a serialized ModelInferRequest; its arrays are views of `message`."""
        ident = ""
        try:
            # Most requests begin like the one before them; then their fields need no walk.
            plan = self._plans.get(bytes(message[: self._key_size]))
            raws = None if plan is None else _only_raws(message, self._key_size)
            if plan is None or raws is None:
                key, ident, raws = _split(message)
                self._key_size = len(key)
                plan = self._plans.get(key) or self._learn(key)
        except IndexError:
            raise InternalError("malformed ModelInferRequest: it ends too early") from None
        if len(raws) != plan.raw_count:
            raise InvalidArgument(_count_mismatch(plan, len(raws)))
        inputs: list[InputTensor] = []
        index = 0
        for item in plan.inputs:
            data = item.array
            misfit = item.misfit_bytes
            if item.raw:
                start, end = raws[index]
                index += 1
                if item.size in (-1, end - start):
                    data = _view(item, plan.model, message, start, end)
                else:
                    misfit = end - start
            inputs.append(
                InputTensor(item.name, item.datatype, item.shape, data, item.parameters, misfit)
            )
        parameters = None if plan.parameters is None else plan.parameters.copy()
        request = InferRequest(plan.model, inputs, plan.version, ident, plan.outputs, parameters)
        return request, plan

    def _learn(self, key: bytes) -> Plan:
        try:
            message = _Request.FromString(key)
        except DecodeError as error:
            raise InternalError(f"malformed ModelInferRequest: {error}") from None
        plan = plan_request(message)
        if len(key) <= _MAX_PLAN_BYTES and all(item.array is None for item in plan.inputs):
            if len(self._plans) >= _MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan


def _only_raws(message: Buffer, at: int) -> list[tuple[int, int]] | None:
    """Where the raw tensors are, if nothing but them comes from `at` on."""
    end = len(message)
    raws: list[tuple[int, int]] = []
    while at < end:
        if message[at] != _RAW:
            return None
        size, start = _varint(message, at + 1)
        at = start + size
        raws.append((start, at))
    return raws if at == end else None


def _split(message: Buffer) -> tuple[bytes, str, list[tuple[int, int]]]:
    """The bytes of all fields but id and raw data, the id, and where each raw tensor is."""
    at, end = 0, len(message)
    ident = ""
    raws: list[tuple[int, int]] = []
    pieces: list[tuple[int, int]] = []  # what stays, as merged ranges
    kept = 0  # start of the present range
    while at < end:
        tag = message[at]
        if tag not in _DELIMITED:
            raise InternalError(f"malformed ModelInferRequest: unexpected field tag {tag:#x}")
        size, start = _varint(message, at + 1)
        stop = start + size
        if stop > end:
            raise InternalError("malformed ModelInferRequest: it ends too early")
        if tag in (_RAW, _ID):
            if kept < at:
                pieces.append((kept, at))
            kept = stop
            if tag == _RAW:
                raws.append((start, stop))
            else:
                ident = _text(message, start, stop)
        at = stop
    if kept < end:
        pieces.append((kept, end))
    if len(pieces) == 1:
        return bytes(message[pieces[0][0] : pieces[0][1]]), ident, raws
    return b"".join([message[start:stop] for start, stop in pieces]), ident, raws


def request_id(message: Buffer) -> str:
    """The id of a request that may be malformed otherwise."""
    try:
        return _split(message)[1]
    except (IndexError, TuiliError):
        return ""


def tensor_offset(start: bytes) -> int:
    """Where the first raw tensor of a request that starts like this begins; 0 if not told."""
    at = 0
    try:
        while start[at] in _DELIMITED:
            size, content = _varint(start, at + 1)
            if start[at] == _RAW:
                return content
            at = content + size
    except (IndexError, InvalidArgument):
        return 0
    return 0


def _text(message: Buffer, start: int, stop: int) -> str:
    try:
        return str(message[start:stop], "utf-8")
    except UnicodeDecodeError:
        raise InternalError("malformed ModelInferRequest: the id is not UTF-8") from None


def _view(item: PlannedInput, model: str, message: Buffer, start: int, end: int) -> Array:
    """The array of an input inside the message."""
    if item.size < 0:
        return decode_bytes(item.name, item.shape, memoryview(message)[start:end], model)
    return np.ndarray(item.shape, item.dtype, message, start)


def _count_mismatch(plan: Plan, got: int) -> str:
    if plan.raw_count == 0:
        return (
            "contents field must not be specified when using raw_input_contents for '"
            f"{plan.inputs[0].name if plan.inputs else ''}' for model '{plan.model}'"
        )
    raw = [item.name for item in plan.inputs if item.raw]
    if got < len(raw):
        where = f"input tensor '{raw[got]}' for model '{plan.model}'"
        return f"unable to find data for {where} in request."
    return (
        f"expected {plan.raw_count} raw_input_contents for the inputs of model '{plan.model}',"
        f" got {got}"
    )


def plan_request(message: Any) -> Plan:
    """The plan of a parsed request without its raw data, every field of it checked."""
    inputs = [_plan_input(item) for item in message.inputs]
    names = [item.name for item in inputs]
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"input '{twice}' already exists in request")
    typed = [item for item in inputs if item.array is not None or item.misfit_bytes >= 0]
    raw = [item for item in inputs if item.raw]
    if typed:
        # All or none: an input without contents is an empty tensor when another has contents.
        for item in raw:
            item.array = _empty(item, message.model_name)
            item.raw = False
        raw = []
    parameters = read_parameters(message.parameters)
    empty_final = bool(parameters.pop("triton_enable_empty_final_response", False))
    _check_parameters(parameters)
    return Plan(
        message.model_name,
        message.model_version,
        inputs,
        len(raw),
        _plan_outputs(message.outputs),
        parameters or None,
        empty_final,
    )


def _plan_input(item: Any) -> PlannedInput:
    shape = tuple(item.shape)
    dtype = NUMPY.get(item.datatype)
    if dtype is None:
        raise InvalidArgument(f"invalid datatype '{item.datatype}' for input '{item.name}'")
    try:
        size = -1 if item.datatype == "BYTES" else element_count(shape) * dtype.itemsize
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid shape for input '{item.name}': {error}") from None
    parameters = read_parameters(item.parameters)
    planned = PlannedInput(
        item.name, item.datatype, shape, dtype, size, parameters or None,
        raw="shared_memory_region" not in parameters, array=None,
    )  # fmt: skip
    if item.HasField("contents"):
        if not planned.raw:
            raise InvalidArgument(
                f"unexpected 'contents' for input '{item.name}' that is in shared memory"
            )
        planned.array = _array_from_contents(planned, item.contents)
        planned.raw = False
    return planned


def _check_parameters(parameters: Parameters) -> None:
    for key, value in parameters.items():
        try:
            check_parameter(key, value)
        except WrongType as error:
            raise InvalidArgument(
                f"invalid value type for '{key}' parameter, expected {_CHOICES[key]}."
            ) from error


def _empty(item: PlannedInput, model: str) -> Array:
    if 0 not in item.shape:
        raise InvalidArgument(
            f"expected contents for input '{item.name}' for model '{model}': either all inputs"
            " are in raw_input_contents, or none"
        )
    return np.empty(item.shape, item.dtype)


def _array_from_contents(item: PlannedInput, contents: Any) -> Array | None:
    """The array of an input that came in typed fields; None when they do not fill its shape."""
    if item.datatype in RAW_ONLY:
        raise InvalidArgument(
            f"{item.datatype} input '{item.name}' must be sent in raw_input_contents"
        )
    field, wire_type = _CONTENTS[item.datatype]
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise InvalidArgument(
                f"unexpected '{descriptor.name}' for input '{item.name}', expected '{field}' for"
                f" datatype {item.datatype}"
            )
    values = getattr(contents, field)
    count = element_count(item.shape)
    if len(values) != count:
        item.misfit_bytes = len(values) * item.dtype.itemsize
        return None
    found: Array = np.fromiter(values, wire_type, count)
    if item.dtype.kind in "iu" and count:
        bounds = np.iinfo(item.dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise InvalidArgument(
                f"input '{item.name}' has values out of the range of {item.datatype}"
            )
    return found.astype(item.dtype, copy=False).reshape(item.shape)


def _plan_outputs(items: Any) -> list[RequestedOutput] | None:
    outputs: list[RequestedOutput] = []
    seen: set[str] = set()
    for item in items:
        if item.name in seen:
            raise InvalidArgument(f"output '{item.name}' already exists in request")
        seen.add(item.name)
        parameters = read_parameters(item.parameters)
        if "shared_memory_region" in parameters and "classification" in parameters:
            raise InvalidArgument(
                "Output can't set both 'shared_memory_region' and 'classification'"
            )
        outputs.append(RequestedOutput(item.name, parameters or None))
    return outputs or None


def read_parameters(parameters: Any) -> Parameters:
    """A map of InferParameter as a dictionary."""
    found: Parameters = {}
    for key, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidArgument(
                f"invalid value type for '{key}' parameter, expected bool, int64, string, double"
                " or uint64"
            )
        found[key] = getattr(value, kind)
    return found


def write_parameters(target: Any, parameters: Parameters) -> None:
    """Fill a map of InferParameter."""
    for key, value in parameters.items():
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int):
            if value < 1 << 63:
                target[key].int64_param = value
            else:
                target[key].uint64_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        else:
            target[key].string_param = value


class ResponseEncoder:
    """Makes messages of responses, remembering the part that does not change with the data."""

    def __init__(self) -> None:
        self._fronts: dict[tuple[Any, ...], bytes] = {}
        self._starts: dict[tuple[Any, ...], bytes] = {}  # of messages with one small tensor

    def encode(self, response: InferResponse, extra: Parameters | None = None) -> list[Buffer]:
        """A serialized ModelInferResponse in pieces; `extra` are parameters beside its own."""
        if len(response.outputs) == 1 and extra is None and not response.id:
            message = self._one_small(response, response.outputs[0])
            if message is not None:
                return [message]
        key: list[Any] = [response.model, response.version]
        tail: list[Buffer] = []
        plain = True
        small = bytearray()
        for output in response.outputs:
            key += (output.name, output.datatype, output.shape)
            plain = plain and output.parameters is None
            data = output.data
            if data is None:
                raw = b""
            elif data.nbytes < _SMALL and not data.dtype.hasobject:
                raw = data.tobytes()
            else:
                raw = encode(data, output.datatype)
            small.append(0x32)
            _append_varint(small, len(raw))
            if len(raw) < _SMALL:
                small += raw
            else:
                tail += (bytes(small), raw)
                small = bytearray()
        front = self._front(tuple(key), response) if plain else front_of(response)
        front += _changing(response, extra)
        if not tail:
            return [front + small]
        tail[0] = front + bytes(tail[0])
        if small:
            tail.append(bytes(small))
        return tail

    def _one_small(self, response: InferResponse, output: OutputTensor) -> bytes | None:
        """The message of one small tensor and nothing else; None for any other response."""
        data = output.data
        if data is None or data.nbytes >= _SMALL or data.dtype.hasobject:
            return None
        if output.parameters is not None or response.parameters is not None:
            return None
        key = (response.model, response.version, output.name, output.datatype, output.shape)
        start = self._starts.get(key)
        if start is None:
            start = front_of(response) + raw_head(data.nbytes)
            if len(self._starts) >= _MAX_PLANS:
                del self._starts[next(iter(self._starts))]
            self._starts[key] = start
        return start + data.tobytes()

    def _front(self, key: tuple[Any, ...], response: InferResponse) -> bytes:
        front = self._fronts.get(key)
        if front is None:
            front = front_of(response)
            if len(self._fronts) >= _MAX_PLANS:
                del self._fronts[next(iter(self._fronts))]
            self._fronts[key] = front
        return front


def front_of(response: InferResponse) -> bytes:
    """Model, version and the description of the outputs, serialized."""
    return bytes(
        _Response(
            model_name=response.model,
            model_version=response.version,
            outputs=[_describe(output) for output in response.outputs],
        ).SerializeToString()
    )


def raw_head(size: int, tag: int = 0x32) -> bytes:
    """What stands before the bytes of a raw tensor: in a response, or with `RAW_INPUT`."""
    head = bytearray((tag,))
    _append_varint(head, size)
    return bytes(head)


def _describe(output: OutputTensor) -> Any:
    message = _OutputTensor(name=output.name, datatype=output.datatype, shape=output.shape)
    if output.parameters:
        write_parameters(message.parameters, output.parameters)
    return message


def _changing(response: InferResponse, extra: Parameters | None) -> bytes:
    """The serialized id and parameters; protobuf lets fields come in any order."""
    if not response.id and not response.parameters and not extra:
        return b""
    message = _Response(id=response.id)
    write_parameters(message.parameters, {**(response.parameters or {}), **(extra or {})})
    return bytes(message.SerializeToString())


def wrap_stream_response(parts: list[Buffer]) -> list[Buffer]:
    """ModelStreamInferResponse around a serialized ModelInferResponse."""
    head = bytearray(b"\x12")
    _append_varint(head, sum(map(len, parts)))
    return [bytes(head), *parts]


def stream_error(request: InferRequest, text: str, final: bool) -> list[Buffer]:
    """ModelStreamInferResponse that tells what went wrong with one request of the stream."""
    response = InferResponse(request.model, request.version, [], request.id)
    message = INFERENCE["ModelStreamInferResponse"](error_message=text)
    message.infer_response.ParseFromString(
        front_of(response) + _changing(response, {"triton_final_response": final})
    )
    return [bytes(message.SerializeToString())]

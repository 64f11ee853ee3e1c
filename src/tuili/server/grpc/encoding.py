"""`InferResponse` to ModelInferResponse bytes, written by hand around the tensors.

What describes the outputs says the same for most answers of a model, and is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tuili.errors import TuiliError
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.varints import Buffer, append_varint
from tuili.server.protocol.datatypes import TURN_ELEMENTS, encode, write_bytes
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    OutputTensor,
    Parameters,
)
from tuili.server.steps import Steps

# The message of an answer in pieces, or what to answer instead.
Written = list[Buffer] | TuiliError

_MAX_FRONTS: Final = 1024
_SMALL: Final = 16 << 10  # outputs below are joined with what surrounds them

_Response: Final = INFERENCE["ModelInferResponse"]
_OutputTensor: Final = INFERENCE["ModelInferResponse.InferOutputTensor"]


class ResponseEncoder:
    """Makes messages of responses, remembering the part that does not change with the data."""

    def __init__(self) -> None:
        self._fronts: dict[tuple[Any, ...], bytes] = {}
        self._starts: dict[tuple[Any, ...], bytes] = {}  # of messages with one small tensor

    def write(
        self, response: InferResponse, extra: Parameters | None = None
    ) -> Steps[list[Buffer]]:
        """As `encode`, with turns for others."""
        texts: dict[str, list[bytes]] = {}
        for output in response.outputs:
            if output.data is not None and _is_long(output.data):
                texts[output.name] = yield from write_bytes(output.data)
        return self.encode(response, extra, texts)

    def encode(
        self,
        response: InferResponse,
        extra: Parameters | None = None,
        texts: Mapping[str, list[bytes]] | None = None,
    ) -> list[Buffer]:
        """A serialized ModelInferResponse in pieces; `extra` are parameters beside its own.

        `texts` are outputs of text that are written already, in pieces.
        """
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
            raw: Sequence[Buffer] = ()
            if data is not None and data.nbytes < _SMALL and not data.dtype.hasobject:
                raw = (data.tobytes(),)
            elif data is not None:
                raw = (texts or {}).get(output.name) or (encode(data, output.datatype),)
            size = sum(map(len, raw))
            small.append(0x32)
            append_varint(small, size)
            if size < _SMALL:
                small += b"".join(raw)
            else:
                tail += (bytes(small), *raw)
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
            if len(self._starts) >= _MAX_FRONTS:
                del self._starts[next(iter(self._starts))]
            self._starts[key] = start
        return start + data.tobytes()

    def _front(self, key: tuple[Any, ...], response: InferResponse) -> bytes:
        front = self._fronts.get(key)
        if front is None:
            front = front_of(response)
            if len(self._fronts) >= _MAX_FRONTS:
                del self._fronts[next(iter(self._fronts))]
            self._fronts[key] = front
        return front


def is_long(response: InferResponse) -> bool:
    """Whether to write a response takes long."""
    for output in response.outputs:
        data = output.data
        if data is not None and _is_long(data):
            return True
    return False


def _is_long(data: Array) -> bool:
    return data.size > TURN_ELEMENTS and data.dtype.hasobject


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
    append_varint(head, size)
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


def wrap_stream_response(parts: list[Buffer]) -> list[Buffer]:
    """ModelStreamInferResponse around a serialized ModelInferResponse."""
    head = bytearray(b"\x12")
    append_varint(head, sum(map(len, parts)))
    return [bytes(head), *parts]


def stream_error(request: InferRequest, text: str, final: bool) -> list[Buffer]:
    """ModelStreamInferResponse that tells what went wrong with one request of the stream."""
    response = InferResponse(request.model, request.version, [], request.id)
    # What an operating system gives as text may hold halves of characters.
    told = text.encode("utf-8", "replace").decode()
    message = INFERENCE["ModelStreamInferResponse"](error_message=told)
    message.infer_response.ParseFromString(
        front_of(response) + _changing(response, {"triton_final_response": final})
    )
    return [bytes(message.SerializeToString())]

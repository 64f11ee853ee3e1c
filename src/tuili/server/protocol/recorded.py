"""Recorded requests: the form in which a request is kept in a file, and read again.

It is what an HTTP client would send: a line of JSON and behind it the tensors' bytes, in the order
of the inputs (KServe v2, extension_binary_data.md). With the length of that line as
`Inference-Header-Content-Length` any HTTP client can send it again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tuili.errors import InvalidArgument, TuiliError
from tuili.server.protocol.datatypes import decode, encode
from tuili.server.protocol.messages import InferRequest, InputTensor, Parameters, RequestedOutput


class _Size(msgspec.Struct):
    binary_data_size: int


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _Size


class _Output(msgspec.Struct):
    name: str


class _Head(msgspec.Struct, omit_defaults=True):
    inputs: list[_Input]
    outputs: list[_Output] = []
    parameters: Parameters = {}


# Requests that are alike to a model but for their numbers.
Shapes = tuple[tuple[str, str, tuple[int, ...]], ...]


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode_head: Final = msgspec.json.Decoder(_Head).decode


def shapes_of(request: InferRequest) -> Shapes:
    """What tells a request from others that are worth keeping."""
    return tuple(sorted([(each.name, each.datatype, each.shape) for each in request.inputs]))


def dump(request: InferRequest) -> bytes:
    """The file of a request whose inputs are all there."""
    inputs: list[_Input] = []
    parts: list[bytes | memoryview] = []
    for each in request.inputs:
        assert each.data is not None
        parts.append(encode(each.data, each.datatype))
        inputs.append(_Input(each.name, each.datatype, each.shape, _Size(len(parts[-1]))))
    outputs = [_Output(each.name) for each in request.outputs or ()]
    head = _Head(inputs, outputs, request.parameters or {})
    return b"".join([msgspec.json.encode(head), b"\n", *parts])


def parse(data: bytes, model: str) -> InferRequest:
    """The request to `model` that a file holds; InvalidArgument for a file that is damaged."""
    line, newline, tensors = data.partition(b"\n")
    if not newline:
        raise InvalidArgument("it has no line of JSON with tensors behind it")
    try:
        head = _decode_head(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"its first line is not the JSON of a request: {error}") from error
    expected = sum(each.parameters.binary_data_size for each in head.inputs)
    if expected != len(tensors) or any(
        each.parameters.binary_data_size < 0 for each in head.inputs
    ):
        raise InvalidArgument(
            f"{len(tensors)} bytes lie behind its first line, which tells of {expected}"
        )
    inputs: list[InputTensor] = []
    at = 0
    for each in head.inputs:
        start, at = at, at + each.parameters.binary_data_size
        array = decode(each.name, each.datatype, each.shape, tensors[start:at])
        inputs.append(InputTensor(each.name, each.datatype, each.shape, array))
    outputs = [RequestedOutput(each.name) for each in head.outputs] or None
    return InferRequest(model, inputs, outputs=outputs, parameters=head.parameters or None)


def shapes_in(data: bytes) -> Shapes | None:
    """The shapes of a recorded request; None for a file that is damaged."""
    try:
        return shapes_of(parse(data, ""))
    except TuiliError:
        return None

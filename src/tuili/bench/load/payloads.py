"""v2 inference requests as bytes: HTTP with binary tensors, gRPC, or tensors in shared memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tuili.bench.load.answers import Expectation
from tuili.bench.load.exchange import Exchange
from tuili.bench.load.regions import Places
from tuili.bench.load.sockets import Target
from tuili.errors import InvalidArgument
from tuili.server.protocol.datatypes import DTYPE, NUMPY, encode
from tuili.tensors import Array

_PREFIX: Final = struct.Struct(">BI")
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a model, and how."""

    model: str
    version: str = ""
    datatypes: Mapping[str, str] | None = None  # of inputs whose array does not tell
    parameters: Mapping[str, Any] | None = None
    json_tensors: bool = False  # HTTP: tensors as JSON text instead of bytes
    ids: bool = False  # each request has an id of its own
    ident: str = ""

    def datatype(self, name: str, array: Array) -> str:
        """The protocol's name of an input's type."""
        if self.datatypes and name in self.datatypes:
            return self.datatypes[name]
        for known, dtype in NUMPY.items():
            if dtype == array.dtype:
                return known
        return "BYTES"


def exchange(
    target: Target, question: Question, inputs: Arrays, expectation: Expectation, label: str = ""
) -> Exchange:
    """A request with its tensors in the message."""
    if target.protocol == "grpc":
        return Exchange(grpc_message(question, inputs), expectation.grpc, label)
    return Exchange(http_text(target, question, inputs), expectation.http, label)


def http_text(target: Target, question: Question, inputs: Arrays) -> bytes:
    """A whole HTTP request."""
    entries: list[dict[str, Any]] = []
    blobs: list[bytes | memoryview] = []
    for name, array in inputs.items():
        datatype = question.datatype(name, array)
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if question.json_tensors:
            entry["data"] = _json_data(array)
        else:
            blob = encode(array, datatype)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        entries.append(entry)
    parameters = dict(question.parameters or {})
    if not question.json_tensors:
        parameters["binary_data_output"] = True
    document: dict[str, Any] = {"id": question.ident} if question.ident else {}
    document["inputs"] = entries
    if parameters:
        document["parameters"] = parameters
    return frame_http(target, question, document, blobs)


def frame_http(
    target: Target,
    question: Question,
    document: dict[str, Any],
    blobs: Sequence[bytes | memoryview] = (),
) -> bytes:
    """Request line, fields, JSON, tensors."""
    text = json.dumps(document, separators=(",", ":")).encode()
    size = len(text) + sum(map(len, blobs))
    path = f"/v2/models/{question.model}"
    if question.version:
        path += f"/versions/{question.version}"
    head = f"POST {path}/infer HTTP/1.1\r\nHost: {target.authority}\r\nContent-Length: {size}\r\n"
    if blobs:
        head += "Content-Type: application/octet-stream\r\n"
        head += f"Inference-Header-Content-Length: {len(text)}\r\n"
    else:
        head += "Content-Type: application/json\r\n"
    return b"".join((head.encode(), b"\r\n", text, *blobs))


def _json_data(array: Array) -> list[Any]:
    if array.dtype == object:
        return [item.decode() for item in array.reshape(-1).tolist()]
    return array.reshape(-1).tolist()


def grpc_message(question: Question, inputs: Arrays) -> bytes:
    """A framed ModelInferRequest."""
    message = _grpc_request(question)
    for name, array in inputs.items():
        datatype = question.datatype(name, array)
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(bytes(encode(array, datatype)))
    return frame_grpc(message)


def frame_grpc(message: Any) -> bytes:
    """gRPC's prefix and the message."""
    text = message.SerializeToString()
    return _PREFIX.pack(0, len(text)) + text


def _grpc_request(question: Question) -> Any:
    from tuili.server.grpc.schema import INFERENCE

    message = INFERENCE["ModelInferRequest"](
        model_name=question.model, model_version=question.version, id=question.ident
    )
    for key, value in (question.parameters or {}).items():
        set_parameter(message.parameters[key], value)
    return message


def set_parameter(parameter: Any, value: object) -> None:
    """A parameter's value in the field for its type."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "bool_param"), (int, "int64_param"), (str, "string_param"), (float, "double_param"),
    )  # fmt: skip
    for kind, field in kinds:
        if isinstance(value, kind):
            setattr(parameter, field, value)
            return
    raise InvalidArgument(f"a parameter must be a flag, a number or text, got {value!r}")


def shared_exchange(
    target: Target,
    question: Question,
    places: Places,
    expectation: Expectation,
    label: str = "",
) -> Exchange:
    """A request whose tensors, in and out, lie in shared memory."""

    def judge(headers: dict[bytes, bytes], body: bytes) -> None:
        places.judge(expectation)

    if target.protocol == "grpc":
        payload = _shared_grpc(question, places)
    else:
        payload = frame_http(target, question, _shared_json(question, places))
    found = Exchange(payload, judge, label, before=places.spoil)
    found.repeats = False
    return found


def _shared_json(question: Question, places: Places) -> dict[str, Any]:
    def at(offset: int, size: int) -> dict[str, Any]:
        found: dict[str, Any] = {
            "shared_memory_region": places.region,
            "shared_memory_byte_size": size,
        }
        return found | ({"shared_memory_offset": offset} if offset else {})

    inputs = [
        {
            "name": name, "datatype": question.datatype(name, array), "shape": list(array.shape),
            "parameters": at(offset, size),
        }
        for name, array, offset, size in places.inputs
    ]  # fmt: skip
    outputs = [
        {"name": place.name, "parameters": at(place.offset, place.size)} for place in places.outputs
    ]
    return {"inputs": inputs, "outputs": outputs}


def _shared_grpc(question: Question, places: Places) -> bytes:
    message = _grpc_request(question)

    def point(tensor: Any, offset: int, size: int) -> None:
        set_parameter(tensor.parameters["shared_memory_region"], places.region)
        set_parameter(tensor.parameters["shared_memory_byte_size"], size)
        if offset:
            set_parameter(tensor.parameters["shared_memory_offset"], offset)

    for name, array, offset, size in places.inputs:
        datatype = question.datatype(name, array)
        point(message.inputs.add(name=name, datatype=datatype, shape=array.shape), offset, size)
    for place in places.outputs:
        point(message.outputs.add(name=place.name), place.offset, place.size)
    return frame_grpc(message)


def made_up(
    specs: Sequence[Mapping[str, Any]],
    shapes: Mapping[str, tuple[int, ...]],
    make: Callable[[str, tuple[int, ...]], Array],
) -> dict[str, Array]:
    """Arrays for the inputs that metadata lists; open dims are 1 unless `shapes` says."""
    unknown = shapes.keys() - {spec["name"] for spec in specs}
    if unknown:
        names = ", ".join(repr(spec["name"]) for spec in specs)
        raise InvalidArgument(f"--shape {min(unknown)!r}: the model's inputs are {names}")
    return {
        spec["name"]: make(
            spec["datatype"],
            shapes.get(spec["name"]) or tuple(max(int(dim), 1) for dim in spec["shape"]),
        )
        for spec in specs
    }


def random_array(rng: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> Array:
    """Normal floats, 0 and 1 of other kinds, short texts."""
    if datatype == "BYTES":
        items = np.empty(shape, object)
        items.reshape(-1)[:] = [b"%d" % n for n in rng.integers(0, 100, items.size)]
        return items
    kind = DTYPE.get(datatype)
    if kind is None:
        raise InvalidArgument(f"cannot make up values of type {datatype!r}")
    if kind.is_float:
        return rng.standard_normal(shape).astype(kind.numpy)
    return rng.integers(0, 2, shape).astype(kind.numpy)

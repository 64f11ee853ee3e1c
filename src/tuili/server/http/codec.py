"""A v2 inference body to `InferRequest`, and `InferResponse` to a reply.

A body is JSON, then (with the binary extension) the bytes of the tensors one after the other.  What
the JSON says is a *plan* that depends on nothing else; clients send the same few over and over, so
plans are remembered by their text, and a request of a known plan costs a dict lookup and one array
view per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.http.infer_reply import Form
from tuili.server.http.json_tensors import array_from_json
from tuili.server.http.json_text import parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_values import SHORT, LongArray
from tuili.server.http.refusals import JsonMistake
from tuili.server.http.reply import Buffer
from tuili.server.protocol.datatypes import (
    NUMPY,
    TURN_ELEMENTS,
    decode_bytes,
    element_count,
    read_bytes,
)
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InputTensor,
    Parameters,
    RequestedOutput,
)
from tuili.server.protocol.parameters import check_parameter, wrong_type
from tuili.server.steps import Steps

_MAX_PLANS: Final = 1024
_NO_TEXTS: Final[dict[str, Array]] = {}
_INT64_MAX: Final = (1 << 63) - 1
_MAX_PLAN_BYTES: Final = 4096


class PlannedInput(msgspec.Struct):
    """One input of a plan; `stop` is -1 when no binary data belongs to it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    stop: int
    parameters: Parameters | None
    array: np.ndarray[Any, Any] | None = None  # JSON data, already an array


class Plan(msgspec.Struct):
    """What the JSON part of a request says."""

    inputs: list[PlannedInput]
    binary_bytes: int
    id: str
    outputs: list[RequestedOutput] | None
    parameters: Parameters | None
    form: Form
    constant: bool  # nothing in it changes from request to request
    in_text: int = 0  # how many inputs have their data in it
    is_long: bool = False  # whether so many elements of text are in the binary data


class InferDecoder:
    """Makes requests of bodies; one per front end, since it remembers plans."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._plans: dict[bytes, Plan] = {}

    def decode(
        self, body: Buffer, json_length: int, model: str, version: str
    ) -> tuple[InferRequest, Plan]:
        """The request in `body`, whose first `json_length` bytes are JSON."""
        plan = self.plan(body, json_length)
        return self.request(plan, body, json_length, model, version), plan

    def plan(self, body: Buffer, json_length: int) -> Plan:
        """What the JSON says."""
        text = bytes(body[:json_length])
        return self._plans.get(text) or self._learn(text)

    def read(
        self, plan: Plan, body: Buffer, json_length: int, model: str, version: str
    ) -> Steps[InferRequest]:
        """As `request`, with turns for others while long text is read."""
        _check_size_of(plan, body, json_length, model)
        texts: dict[str, Array] = {}
        for item in plan.inputs:
            if item.stop >= 0 and item.datatype == "BYTES":
                raw = memoryview(body)[json_length + item.start : json_length + item.stop]
                texts[item.name] = yield from read_bytes(item.name, item.shape, raw, model)
        return self.request(plan, body, json_length, model, version, texts)

    def request(
        self,
        plan: Plan,
        body: Buffer,
        json_length: int,
        model: str,
        version: str,
        texts: Mapping[str, Array] = _NO_TEXTS,
    ) -> InferRequest:
        """The request of a plan; `texts` are those that are read already."""
        _check_size_of(plan, body, json_length, model)
        inputs: list[InputTensor] = []
        for item in plan.inputs:
            if item.stop < 0:
                data = item.array
            elif item.datatype != "BYTES":
                data = np.ndarray(item.shape, item.dtype, body, json_length + item.start)
            elif item.name in texts:
                data = texts[item.name]
            else:
                raw = memoryview(body)[json_length + item.start : json_length + item.stop]
                data = decode_bytes(item.name, item.shape, raw, model)
            inputs.append(InputTensor(item.name, item.datatype, item.shape, data, item.parameters))
        parameters = plan.parameters
        return InferRequest(
            model,
            inputs,
            version,
            plan.id,
            plan.outputs,
            None if parameters is None else parameters.copy(),
        )

    def _learn(self, text: bytes) -> Plan:
        plan = plan_request(parse_json(text, self._limits))
        if plan.constant and len(text) <= _MAX_PLAN_BYTES:
            if len(self._plans) >= _MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[text] = plan
        return plan


def _check_size_of(plan: Plan, body: Buffer, json_length: int, model: str) -> None:
    if len(body) - json_length != plan.binary_bytes:
        raise InvalidArgument(_size_mismatch(plan, len(body) - json_length, model))


def _size_mismatch(plan: Plan, got: int, model: str) -> str:
    if got > plan.binary_bytes:
        return f"unexpected additional input data for model '{model}'"
    for item in plan.inputs:
        if item.stop > got:
            missing = item.stop - max(got, item.start)
            return (
                f"unexpected size for input '{item.name}', expecting {missing} additional bytes"
                f" for model '{model}'"
            )
    raise AssertionError("sizes agree")


def plan_request(document: Any) -> Plan:
    """The plan of a parsed request, every field of it checked."""
    if not isinstance(document, dict):
        raise JsonMistake("the request JSON must be an object")
    request: dict[str, Any] = document
    ident = request.get("id", "")
    if not isinstance(ident, str):
        raise JsonMistake("Unable to parse 'id': attempt to access JSON non-string as string")
    parameters, binary_default = _request_parameters(request.get("parameters"))
    entries = _array(request, "inputs")
    inputs: list[PlannedInput] = []
    names: set[str] = set()
    at = in_text = 0
    is_long = False
    for entry in entries:
        planned = _plan_input(entry, at)
        if planned.name in names:
            raise InvalidArgument(f"input '{planned.name}' already exists in request")
        names.add(planned.name)
        if planned.stop >= 0:
            at = planned.stop
            size = planned.stop - planned.start
            is_long = is_long or (planned.datatype == "BYTES" and size > 4 * TURN_ELEMENTS)
        if planned.array is not None:
            in_text += 1
        inputs.append(planned)
    outputs, binary = _plan_outputs(request.get("outputs"))
    return Plan(
        inputs=inputs,
        binary_bytes=at,
        id=ident,
        outputs=outputs,
        parameters=parameters,
        form=Form(binary_default, binary),
        constant=not (ident or in_text),
        in_text=in_text,
        is_long=is_long,
    )


def _member(owner: dict[str, Any], key: str) -> Any:
    if key not in owner:
        raise JsonMistake(
            f"Unable to parse '{key}': attempt to access non-existing object member '{key}'"
        )
    return owner[key]


def _array(owner: dict[str, Any], key: str) -> list[Any]:
    return _list(key, _member(owner, key))


def _list(key: str, value: Any) -> list[Any]:
    if isinstance(value, LongArray):
        raise InvalidArgument(f"'{key}' has {value.size} elements, expected {SHORT} at most")
    if not isinstance(value, list):
        raise JsonMistake(f"Unable to parse '{key}': attempt to access JSON non-array as array")
    return value


def _string(owner: dict[str, Any], key: str) -> str:
    value = _member(owner, key)
    if not isinstance(value, str):
        raise JsonMistake(f"Unable to parse '{key}': attempt to access JSON non-string as string")
    return value


def _plan_input(entry: Any, at: int) -> PlannedInput:
    if not isinstance(entry, dict):
        raise JsonMistake("Unable to parse 'inputs': attempt to get members for non-object")
    tensor: dict[str, Any] = entry
    parameters = _object(tensor.get("parameters"))
    _check_one_source(tensor, parameters)
    name, datatype = _string(tensor, "name"), _string(tensor, "datatype")
    shape = _shape(tensor)
    dtype = NUMPY.get(datatype)
    if dtype is None:
        raise InvalidArgument(f"invalid datatype for input {name}: {datatype!r}")
    _check_size(name, shape, dtype.itemsize)
    planned = PlannedInput(name, datatype, shape, dtype, at, -1, None)
    size = parameters.pop("binary_data_size", None)
    if "data" in tensor:
        planned.array = array_from_json(name, datatype, shape, tensor["data"])
    elif size is not None:
        planned.stop = at + _binary_size(planned, size)
    planned.parameters = parameters or None
    return planned


def _check_one_source(tensor: dict[str, Any], parameters: Parameters) -> None:
    found = [
        name
        for name, owner in (
            ("data", tensor),
            ("binary_data_size", parameters),
            ("shared_memory_region", parameters),
        )
        if name in owner
    ]
    if len(found) != 1:
        told = " set " + " ".join(f"'{name}'" for name in found) if found else " no field is set"
        raise InvalidArgument(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in"
            f" 'parameters', 'shared_memory_region' in 'parameters'. But{told}"
        )


def _shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    shape = _array(tensor, "shape")
    for dim in shape:
        if type(dim) is not int or not 0 <= dim < 1 << 63:
            raise JsonMistake(
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as"
                f" unsigned-integer: {dim!r}"
            )
    return tuple(shape)


def _check_size(name: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuse what no address space could hold."""
    count = math.prod(shape)
    if count > _INT64_MAX:
        raise InvalidArgument(
            f"invalid shape for input '{name}': shape {list(shape)} causes total element count to"
            f" exceed maximum size of {_INT64_MAX}"
        )
    if count * itemsize > _INT64_MAX:
        raise InvalidArgument(
            f"byte size overflow for input '{name}': element count ({count}) * data type size"
            f" ({itemsize}) exceeds maximum allowed size ({_INT64_MAX})"
        )
    try:
        element_count(shape)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid shape for input '{name}': {error}") from None


def _binary_size(planned: PlannedInput, size: Any) -> int:
    """The checked `binary_data_size` of an input."""
    if type(size) is not int or not 0 <= size < 1 << 62:
        raise wrong_type("binary_data_size", size, "unsigned-integer")
    if planned.datatype != "BYTES":
        expected = math.prod(planned.shape) * planned.dtype.itemsize
        if size != expected:
            raise InvalidArgument(
                f"input '{planned.name}' got unexpected byte size {size}, expected {expected}"
            )
    return size


def _object(value: Any) -> Parameters:
    """A copy of a `parameters` object; {} when there is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise JsonMistake("failed to get request params.: attempt to get members for non-object")
    return dict(value)


def _request_parameters(value: Any) -> tuple[Parameters | None, bool]:
    """The request's parameters without the transport's own, and `binary_data_output`."""
    parameters = _object(value)
    binary_default = parameters.pop("binary_data_output", False)
    if not isinstance(binary_default, bool):
        raise wrong_type("binary_data_output", binary_default, "boolean")
    for key, item in parameters.items():
        check_parameter(key, item)
    return parameters or None, binary_default


def _plan_outputs(value: Any) -> tuple[list[RequestedOutput] | None, dict[str, bool]]:
    if value is None:
        return None, {}
    outputs: list[RequestedOutput] = []
    binary: dict[str, bool] = {}
    seen: set[str] = set()
    for entry in _list("outputs", value):
        if not isinstance(entry, dict):
            raise JsonMistake("Unable to parse 'outputs': attempt to get members for non-object")
        name = _string(entry, "name")
        if name in seen:
            raise InvalidArgument(f"output '{name}' already exists in request")
        seen.add(name)
        parameters = _object(entry.get("parameters"))
        flag = parameters.pop("binary_data", None)
        _check_output(parameters, flag)
        if isinstance(flag, bool):
            binary[name] = flag
        outputs.append(RequestedOutput(name, parameters or None))
    # An empty list asks for nothing in particular, which means everything.
    return outputs or None, binary


def _check_output(parameters: Parameters, flag: Any) -> None:
    if flag is not None and not isinstance(flag, bool):
        raise wrong_type("binary_data", flag, "boolean")
    classes = parameters.get("classification")
    if classes is not None and (type(classes) is not int or classes < 0):
        raise JsonMistake(
            "Unable to set 'classification': attempt to access JSON non-unsigned-integer as"
            f" unsigned-integer: got {classes!r}"
        )
    if "shared_memory_region" in parameters:
        if classes is not None:
            raise InvalidArgument(
                "Output can't set both 'shared_memory_region' and 'classification'"
            )
        if flag:
            raise InvalidArgument("Output can't set both 'shared_memory_region' and 'binary_data'")

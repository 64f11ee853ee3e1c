"""Plans: what a parsed ModelInferRequest says beside its id and its raw data, checked."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, element_count
from tuili.server.protocol.messages import Array, Parameters, RequestedOutput
from tuili.server.protocol.parameters import WrongType, check_parameter

# What a parameter with a meaning is told to be where it is something else.
_CHOICES: Final = {
    "priority": "int64_param or uint64_param",
    "timeout": "int64_param",
    "sequence_id": "int64_param or string_param",
    "sequence_start": "bool_param",
    "sequence_end": "bool_param",
}
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

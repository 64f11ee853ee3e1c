"""Plans: what a parsed ModelInferRequest says beside its id and its raw data, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, element_count
from tuili.server.protocol.joining import joined
from tuili.server.protocol.messages import Array, Parameters, RequestedOutput
from tuili.server.protocol.parameters import WrongType, check_parameter
from tuili.server.steps import Steps, at_once

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


# InferTensorContents, which mean together what the contents of an input are; None without any.
Pieces = Iterable[Any] | None


class PlannedInput(msgspec.Struct):
    """One input: `size` bytes of raw data (-1: any, BYTES), or an array that came as contents.

    Those of a long message are in `pieces` until they are read.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int
    parameters: Parameters | None
    raw: bool
    array: Array | None
    misfit_bytes: int = -1  # of contents that do not fill the shape
    pieces: Pieces = None


class Plan(msgspec.Struct):
    """What a request says beside its id and its raw data."""

    model: str
    version: str
    inputs: list[PlannedInput]
    raw_count: int
    outputs: list[RequestedOutput] | None
    parameters: Parameters | None
    empty_final: bool  # the stream's client wants a last message even when it is empty


def plan_request(message: Any, contents: Sequence[Pieces] | None = None) -> Plan:
    """The plan of a parsed request without its raw data, every field of it checked.

    `contents`, if they are not in it, are those of each input.
    """
    pieces = contents or [None] * len(message.inputs)
    inputs = [_plan_input(*each) for each in zip(message.inputs, pieces, strict=True)]
    names = [item.name for item in inputs]
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"input '{twice}' already exists in request")
    typed = [item for item in inputs if is_typed(item)]
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


def is_typed(item: PlannedInput) -> bool:
    """Whether an input came as contents."""
    return item.array is not None or item.misfit_bytes >= 0 or item.pieces is not None


def _plan_input(item: Any, pieces: Pieces) -> PlannedInput:
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
    here = item.HasField("contents")
    if here or pieces is not None:
        if not planned.raw:
            raise InvalidArgument(
                f"unexpected 'contents' for input '{item.name}' that is in shared memory"
            )
        if item.datatype in RAW_ONLY:
            raise InvalidArgument(
                f"{item.datatype} input '{item.name}' must be sent in raw_input_contents"
            )
        planned.pieces = (item.contents,) if here else pieces
        planned.raw = False
        if here:
            at_once(read_contents(planned))
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


def read_contents(item: PlannedInput) -> Steps[None]:
    """Make an input's array of its pieces, or note that they do not fill its shape."""
    pieces, item.pieces = item.pieces, None
    if pieces is None:
        return
    parts: list[Array] = []
    for contents in pieces:
        if parts:
            yield
        parts.append(_values(item, contents))
    found = parts[0] if len(parts) == 1 else (yield from joined(parts, item.dtype))
    if len(found) == element_count(item.shape):
        item.array = found.reshape(item.shape)
    else:
        item.misfit_bytes = len(found) * item.dtype.itemsize


def _values(item: PlannedInput, contents: Any) -> Array:
    """The values in some of an input's contents."""
    field, wire_type = _CONTENTS[item.datatype]
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise InvalidArgument(
                f"unexpected '{descriptor.name}' for input '{item.name}', expected '{field}' for"
                f" datatype {item.datatype}"
            )
    values = getattr(contents, field)
    found: Array = np.fromiter(values, wire_type, len(values))
    if item.dtype.kind in "iu" and len(found):
        bounds = np.iinfo(item.dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise InvalidArgument(
                f"input '{item.name}' has values out of the range of {item.datatype}"
            )
    return found.astype(item.dtype, copy=False)


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

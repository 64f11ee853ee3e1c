"""The `data` field of a JSON tensor: numbers, booleans and text to arrays, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.http.json_text import dump_json, dump_numbers
from tuili.server.http.long_values import LongArray, flatten, packed
from tuili.server.http.pieces import Pieces
from tuili.server.http.refusals import JsonMistake
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, TURN_ELEMENTS, element_count
from tuili.server.protocol.joining import joined
from tuili.server.protocol.messages import Array, OutputTensor
from tuili.server.steps import Steps, at_once

# What NumPy may have made of the JSON values of a datatype of this kind.
_ACCEPTED: Final = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}
# How the protocol's first server calls a value of the wrong type, by the kind that is wanted.
_MISTAKES: Final = {
    "b": "non-boolean as boolean",
    "i": "non-signed-integer as signed-integer",
    "u": "non-unsigned-integer as unsigned-integer",
    "f": "non-number as double",
    "O": "non-string as string",
}


def array_from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Array:
    """The array of a JSON tensor, flat or nested, in row-major order."""
    if not isinstance(data, list):
        return at_once(read_array(name, datatype, shape, data))
    _require_text_form(name, datatype)
    return _shaped(name, shape, _values(name, datatype, data))


def read_array(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Steps[Array]:
    """The same, with turns for others while a long array is read."""
    _require_text_form(name, datatype)
    array = data if isinstance(data, np.ndarray) else (yield from _read_flat(name, datatype, data))
    return _shaped(name, shape, array)


def _require_text_form(name: str, datatype: str) -> None:
    if datatype in RAW_ONLY:
        raise InvalidArgument(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data"
            f" format for input {name}"
        )
    if datatype not in NUMPY:
        raise InvalidArgument(f"invalid datatype for input {name}")


def _shaped(name: str, shape: tuple[int, ...], array: Array) -> Array:
    count = element_count(shape)
    if array.size != count:
        raise JsonMistake(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field: input"
            f" '{name}' has {array.size} elements, but shape {list(shape)} takes {count}"
        )
    return array.reshape(shape)


def _read_flat(name: str, datatype: str, data: Any) -> Steps[Array]:
    """The values of a tensor."""
    if isinstance(data, list):
        return _values(name, datatype, data)
    if not isinstance(data, LongArray):
        raise JsonMistake("Unable to parse 'data': attempt to access JSON non-array as array")
    parts: list[Array] = []
    try:
        for leaf in data.leaves():
            parts.append(_values(name, datatype, leaf))
            yield
    except JsonMistake:
        yield from data.forget()
        raise
    return (yield from joined(parts, NUMPY[datatype]))


def read_long_data(document: Any) -> Steps[None]:
    """Put arrays where an inference request has long arrays for data."""
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for entry in inputs if isinstance(inputs, list) else ():
        data = entry.get("data") if isinstance(entry, dict) else None
        if isinstance(data, LongArray):
            name, datatype = entry.get("name"), entry.get("datatype")
            if isinstance(name, str) and datatype in NUMPY and datatype not in RAW_ONLY:
                entry["data"] = yield from _read_flat(name, datatype, data)


def _values(name: str, datatype: str, data: list[Any] | Array) -> Array:
    """Some values of a tensor."""
    if isinstance(data, np.ndarray):
        if datatype == "BYTES" and data.size:
            raise JsonMistake(_wrong_type(name, datatype))
        return _cast(name, datatype, data, data)
    if datatype == "BYTES":
        return _text_array(name, data)
    found = packed(data)
    if found is None:
        flat = list(flatten(data))
        found = packed(flat)
        if found is None:
            return _wide_integers(name, datatype, flat)
    return _cast(name, datatype, found.reshape(-1), data)


def _cast(name: str, datatype: str, found: Array, data: Any) -> Array:
    """What NumPy made of `data`, as a tensor's type; JsonMistake where it is of another."""
    dtype = NUMPY[datatype]
    if found.size == 0:
        return np.empty(0, dtype)
    if found.dtype.kind not in _ACCEPTED[dtype.kind]:
        found = _wide_integers(name, datatype, data)
    if dtype.kind in "iu" and found.dtype != dtype:
        _check_range(name, datatype, found)
    with np.errstate(over="ignore"):  # 1e300 in an FP32 tensor is Infinity, as in C
        return found.astype(dtype, copy=False)


def _wide_integers(name: str, datatype: str, data: Any) -> Array:
    """UINT64 data that NumPy took for something else, since it spans beyond INT64."""
    values = list(flatten(data))
    if datatype == "UINT64" and all(type(value) is int for value in values):
        try:
            return np.array(values, np.uint64)
        except OverflowError:
            raise JsonMistake(_out_of_range(name, datatype)) from None
    raise JsonMistake(_wrong_type(name, datatype))


def _wrong_type(name: str, datatype: str) -> str:
    mistake = _MISTAKES[NUMPY[datatype].kind]
    if datatype == "BYTES":
        return f"Unable to parse JSON bytes array: attempt to access JSON {mistake}: input '{name}'"
    return f"Unable to parse 'data': attempt to access JSON {mistake}: input '{name}' is {datatype}"


def _check_range(name: str, datatype: str, found: Array) -> None:
    bounds = np.iinfo(NUMPY[datatype])
    if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
        raise JsonMistake(_out_of_range(name, datatype))


def _out_of_range(name: str, datatype: str) -> str:
    return f"Unable to parse 'data': input '{name}' has values out of the range of {datatype}"


def _text_array(name: str, data: list[Any]) -> Array:
    flat = data if set(map(type, data)) <= {str} else list(flatten(data))
    if not set(map(type, flat)) <= {str}:
        raise JsonMistake(_wrong_type(name, "BYTES"))
    array = np.empty(len(flat), object)
    array[:] = [item.encode("utf-8", "surrogatepass") for item in flat]
    return array


def array_text(output: OutputTensor, array: Array) -> bytes:
    """The JSON text of an output, flat; NaN and Infinity are written as such."""
    return _json_text(output, _flat(output, array))


def write_array(output: OutputTensor, array: Array) -> Steps[Pieces]:
    """The same in pieces, with turns for others."""
    return write_nested(_flat(output, array), partial(_json_text, output))


def _flat(output: OutputTensor, array: Array) -> Array:
    if output.datatype in RAW_ONLY:
        raise InvalidArgument(
            f"sending {output.datatype} data via JSON is not supported. Please use the binary data"
            f" format for output '{output.name}'"
        )
    return np.ascontiguousarray(array).reshape(-1)


def write_nested(array: Array, text: Callable[[Array], bytes]) -> Steps[Pieces]:
    """The JSON text of an array's rows in each other; `text` is that of a few of them."""
    if array.size <= TURN_ELEMENTS:
        return [text(array)]
    row = array.size // len(array)
    pieces = [b"["]
    if row > TURN_ELEMENTS:
        for at, each in enumerate(array):
            inner = yield from write_nested(each, text)
            if at:
                pieces.append(b",")
            pieces += inner
    else:
        rows = TURN_ELEMENTS // row
        for at in range(0, len(array), rows):
            if at:
                yield
                pieces.append(b",")
            pieces.append(text(array[at : at + rows])[1:-1])
    pieces.append(b"]")
    return pieces


def _json_text(output: OutputTensor, array: Array) -> bytes:
    if output.datatype == "BYTES":
        return dump_json([_text(output.name, item) for item in array.tolist()])
    return dump_numbers(array)


def _text(name: str, item: bytes | str) -> str:
    try:
        return item if isinstance(item, str) else item.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"output '{name}' holds bytes that are not UTF-8 and have no JSON form;"
            " ask for it with the parameter 'binary_data'"
        ) from None

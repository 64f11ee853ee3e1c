"""The `data` field of a JSON tensor: numbers, booleans and text to arrays, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.http.refusals import JsonMistake
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, element_count
from tuili.server.protocol.messages import Array

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


class LongNumbers:
    """What stands for a long array of numbers, nested or not: the numbers, in row-major order."""

    def __init__(self, parts: list[Array]) -> None:
        self.parts = parts

    def array(self, name: str, datatype: str) -> Array:
        """All of them."""
        if datatype == "BYTES":
            raise JsonMistake(_wrong_type(name, datatype))
        return np.concatenate([_cast(name, datatype, part, part) for part in self.parts])


def array_from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Array:
    """The array of a JSON tensor, flat or nested, in row-major order."""
    if datatype in RAW_ONLY:
        raise InvalidArgument(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data"
            f" format for input {name}"
        )
    if datatype not in NUMPY:
        raise InvalidArgument(f"invalid datatype for input {name}")
    if isinstance(data, LongNumbers):
        array = data.array(name, datatype)
    elif not isinstance(data, list):
        raise JsonMistake("Unable to parse 'data': attempt to access JSON non-array as array")
    elif datatype == "BYTES":
        array = _text_array(name, data)
    else:
        array = _number_array(name, datatype, data)
    count = element_count(shape)
    if array.size != count:
        raise JsonMistake(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field: input"
            f" '{name}' has {array.size} elements, but shape {list(shape)} takes {count}"
        )
    return array.reshape(shape)


def _number_array(name: str, datatype: str, data: list[Any]) -> Array:
    try:
        found = np.array(data)
    except (ValueError, OverflowError):
        # Ragged nesting: only the row-major order counts, so flatten it.
        found = np.array(list(flatten(data)))
    return _cast(name, datatype, found, data)


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
    flat = data if all(type(item) is str for item in data) else list(flatten(data))
    array = np.empty(len(flat), object)
    for index, item in enumerate(flat):
        if not isinstance(item, str):
            raise JsonMistake(_wrong_type(name, "BYTES"))
        array[index] = item.encode("utf-8", "surrogatepass")
    return array


def flatten(data: Any) -> Iterator[Any]:
    """The values of nested lists, in row-major order."""
    for item in data:
        if isinstance(item, list):
            yield from flatten(item)  # the JSON depth limit bounds this recursion
        else:
            yield item


def json_from_array(name: str, datatype: str, array: Array) -> tuple[Any, bool]:
    """The flat JSON form of an output, and whether all of it is finite."""
    if datatype in RAW_ONLY:
        raise InvalidArgument(
            f"sending {datatype} data via JSON is not supported. Please use the binary data"
            f" format for output '{name}'"
        )
    flat = np.ascontiguousarray(array).reshape(-1)
    if datatype == "BYTES":
        return [_text(name, item) for item in flat.tolist()], True
    return flat, flat.dtype.kind != "f" or bool(np.isfinite(flat).all())


def _text(name: str, item: bytes | str) -> str:
    try:
        return item if isinstance(item, str) else item.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"output '{name}' holds bytes that are not UTF-8 and have no JSON form;"
            " ask for it with the parameter 'binary_data'"
        ) from None

"""Values of the predict route: nested JSON with its shape in its nesting, to tensors and back."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.http.json_tensors import read_array
from tuili.server.http.long_values import LongArray, flatten
from tuili.server.http.refusals import JsonMistake
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, element_count
from tuili.server.protocol.joining import joined
from tuili.server.protocol.messages import Array, InputTensor, OutputTensor
from tuili.server.steps import Steps

# The key of an object that stands for bytes which are no text.
BASE64: Final = "b64"
# Outputs with such a name are bytes, not text, even where they could be both.
_BYTES_SUFFIX: Final = "_bytes"
_F32: Final = "FP32"


def read_tensor(name: str, datatype: str, value: Any) -> Steps[InputTensor]:
    """An input of a model from a scalar or nested lists, with turns for others between parts."""
    data = value if isinstance(value, list | LongArray) else [value]
    shape = (yield from _shape_of(name, data)) if data is value else ()
    try:
        element_count(shape)
    except InvalidArgument as error:
        raise InvalidArgument(f"input '{name}': {error}") from None
    if datatype == "BYTES":
        parts: list[Array] = []
        for leaf in data.leaves() if isinstance(data, LongArray) else [flatten(data)]:
            items = [_bytes_of(name, item) for item in leaf]
            parts.append(np.empty(len(items), object))
            parts[-1][:] = items
            yield
        array = (yield from joined(parts, NUMPY[datatype])).reshape(shape)
    elif datatype in RAW_ONLY:
        array = yield from read_array(name, _F32, shape, data)
        array = array.astype(NUMPY[datatype])
    else:
        array = yield from read_array(name, datatype, shape, data)
    return InputTensor(name, datatype, shape, array)


def _shape_of(name: str, data: list[Any] | LongArray, depth: int = 0) -> Steps[tuple[int, ...]]:
    """The lengths of nested lists, which must be the same all over a level."""
    if isinstance(data, list):
        return _shape_of_lists(name, data, depth)
    inner: set[tuple[int, ...]] = set()
    for part in data.parts:
        if isinstance(part, np.ndarray):
            inner.add(part.shape[1:])
        elif any(isinstance(item, LongArray) for item in part):
            for item in part:
                is_long = isinstance(item, LongArray)
                listed = (yield from _shape_of(name, item, depth + 1)) if is_long else None
                inner.add(_shape_of_lists(name, [item], depth)[1:] if listed is None else listed)
        else:
            inner.add(_shape_of_lists(name, part, depth)[1:])
        if len(inner) > 1:
            raise JsonMistake(_uneven(name, depth + 1))
        yield
    return (data.size, *(inner.pop() if inner else ()))


def _shape_of_lists(name: str, value: list[Any], depth: int) -> tuple[int, ...]:
    dims: list[int] = []
    level: list[Any] = [value]
    while level and isinstance(level[0], list):
        lengths = {len(item) if isinstance(item, list) else -1 for item in level}
        if len(lengths) > 1:
            raise JsonMistake(_uneven(name, depth + len(dims)))
        dims.append(len(level[0]))
        level = [item for items in level for item in items]
    if list in set(map(type, level)):
        raise JsonMistake(
            f"input '{name}': lists and values are mixed at depth {depth + len(dims)}"
        )
    return tuple(dims)


def _uneven(name: str, depth: int) -> str:
    return (
        f"input '{name}': the lists at depth {depth} differ in length, and a tensor has one length"
        " for each dimension"
    )


def _bytes_of(name: str, item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    if isinstance(item, dict) and item.keys() == {BASE64} and isinstance(item[BASE64], str):
        try:
            return base64.b64decode(item[BASE64], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(f"input '{name}': not base64: {error}") from None
    raise JsonMistake(
        f'input \'{name}\' takes text, or bytes as {{"{BASE64}": "..."}}, not {type(item).__name__}'
    )


def column_of(output: OutputTensor) -> tuple[Any, bool]:
    """The JSON value of a whole output, and whether all of it is finite."""
    array = _array_of(output)
    if output.datatype == "BYTES":
        as_bytes = output.name.endswith(_BYTES_SUFFIX)
        flat = np.empty(array.size, object)
        flat[:] = [_text_of(item, as_bytes) for item in array.reshape(-1).tolist()]
        return flat.reshape(array.shape).tolist(), True
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    return array if array.ndim else array.item(), finite


def rows_of(output: OutputTensor, count: int) -> tuple[Any, bool]:
    """The values of `count` rows, and whether all of them are finite."""
    if not output.shape or output.shape[0] != count:
        raise InvalidArgument(
            f"output '{output.name}' has shape {list(output.shape)}, which are not {count} rows:"
            " ask with 'inputs' in the place of 'instances', which answers by columns"
        )
    value, finite = column_of(output)
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value, finite


def _array_of(output: OutputTensor) -> Array:
    """The output's array in a form that JSON has numbers for."""
    assert output.data is not None  # no predict request asks for shared memory
    array = np.asarray(output.data).reshape(output.shape)
    if output.datatype in RAW_ONLY:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array


def _text_of(item: bytes | str, as_bytes: bool) -> Any:
    data = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else item
    if not as_bytes:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass  # no text, so it goes as bytes do
    return {BASE64: base64.b64encode(data).decode()}

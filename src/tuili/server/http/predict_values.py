"""Values of the predict route: nested JSON with its shape in its nesting, to tensors and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.http.json_tensors import read_array, write_nested
from tuili.server.http.json_text import dump_json
from tuili.server.http.long_values import LongArray, flatten
from tuili.server.http.pieces import PLACE, Pieces, spliced
from tuili.server.http.refusals import JsonMistake
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, TURN_ELEMENTS, element_count
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


def write_column(output: OutputTensor) -> Steps[Pieces]:
    """The JSON text of a whole output; NaN and Infinity are written as such."""
    return write_nested(_array_of(output), partial(_json_text, output))


def check_rows(output: OutputTensor, count: int) -> None:
    """Refuse an output that has not `count` rows."""
    if not output.shape or output.shape[0] != count:
        raise InvalidArgument(
            f"output '{output.name}' has shape {list(output.shape)}, which are not {count} rows:"
            " ask with 'inputs' in the place of 'instances', which answers by columns"
        )


def write_rows(outputs: Sequence[OutputTensor], count: int) -> Steps[Pieces]:
    """The JSON text of `count` rows, each an object with the values of all outputs."""
    columns = [(output, _array_of(output)) for output in outputs]
    most = sum(array.size for _, array in columns) // count or 1
    step = TURN_ELEMENTS // most
    pieces = [b"["]
    for at in range(0, count, step or 1):
        if at:
            yield
            pieces.append(b",")
        if step:
            part = {output.name: _values(output, rows[at : at + step]) for output, rows in columns}
            finite = all(is_finite for _, is_finite in part.values())
            of_rows = zip(*(values for values, _ in part.values()), strict=True)
            found = [dict(zip(part, row, strict=True)) for row in of_rows]
            pieces.append(dump_json(found, finite)[1:-1])
        else:
            places: list[Pieces] = []
            for output, rows in columns:
                text = partial(_json_text, output)
                places.append((yield from write_nested(rows[at], text)))
            pieces += spliced(dump_json({output.name: PLACE for output, _ in columns}), places)
    pieces.append(b"]")
    return pieces


def _json_text(output: OutputTensor, array: Any) -> bytes:
    """The JSON text of some of an output's values."""
    return dump_json(*_values(output, np.asarray(array)))


def _values(output: OutputTensor, array: Array) -> tuple[Any, bool]:
    """JSON values, and whether all of them are finite."""
    if output.datatype == "BYTES":
        as_bytes = output.name.endswith(_BYTES_SUFFIX)
        flat = np.empty(array.size, object)
        flat[:] = [_text_of(item, as_bytes) for item in array.reshape(-1).tolist()]
        return flat.reshape(array.shape).tolist(), True
    finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    return np.ascontiguousarray(array) if array.ndim > 1 else array.tolist(), finite


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

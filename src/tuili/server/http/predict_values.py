"""Values of the predict route: nested JSON with its shape in its nesting, to tensors and back."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.http.json_tensors import array_from_json, flatten
from tuili.server.http.refusals import JsonMistake
from tuili.server.protocol.datatypes import NUMPY, RAW_ONLY, element_count
from tuili.server.protocol.messages import Array, InputTensor, OutputTensor

# The key of an object that stands for bytes which are no text.
BASE64: Final = "b64"
# Outputs with such a name are bytes, not text, even where they could be both.
_BYTES_SUFFIX: Final = "_bytes"
_F32: Final = "FP32"


def tensor_of(name: str, datatype: str, value: Any) -> InputTensor:
    """An input of a model from a scalar or nested lists."""
    shape = _shape_of(name, value)
    try:
        element_count(shape)
    except InvalidArgument as error:
        raise InvalidArgument(f"input '{name}': {error}") from None
    data = value if isinstance(value, list) else [value]
    if datatype == "BYTES":
        array = np.empty(shape, object)
        array.reshape(-1)[:] = [_bytes_of(name, item) for item in flatten(data)]
    elif datatype in RAW_ONLY:
        array = array_from_json(name, _F32, shape, data).astype(NUMPY[datatype])
    else:
        array = array_from_json(name, datatype, shape, data)
    return InputTensor(name, datatype, shape, array)


def _shape_of(name: str, value: Any) -> tuple[int, ...]:
    """The lengths of nested lists, which must be the same all over a level."""
    dims: list[int] = []
    level: list[Any] = [value]
    while level and isinstance(level[0], list):
        lengths = {len(item) if isinstance(item, list) else -1 for item in level}
        if len(lengths) > 1:
            raise JsonMistake(
                f"input '{name}': the lists at depth {len(dims)} differ in length, and a tensor"
                " has one length for each dimension"
            )
        dims.append(len(level[0]))
        level = [item for items in level for item in items]
    if list in set(map(type, level)):
        raise JsonMistake(f"input '{name}': lists and values are mixed at depth {len(dims)}")
    return tuple(dims)


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

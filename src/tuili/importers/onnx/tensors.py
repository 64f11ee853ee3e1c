"""TensorProto and SparseTensorProto as arrays; external data is mapped, never copied."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tuili.errors import InvalidModel, Unsupported
from tuili.tensors import Array, DType

# TensorProto.DataType to DType
DTYPES: dict[int, DType] = {
    1: DType.F32, 2: DType.U8, 3: DType.I8, 4: DType.U16, 5: DType.I16, 6: DType.I32, 7: DType.I64,
    8: DType.STR, 9: DType.BOOL, 10: DType.F16, 11: DType.F64, 12: DType.U32, 13: DType.U64,
    14: DType.C64, 15: DType.C128, 16: DType.BF16, 17: DType.F8E4M3FN, 18: DType.F8E4M3FNUZ,
    19: DType.F8E5M2, 20: DType.F8E5M2FNUZ, 21: DType.U4, 22: DType.I4, 23: DType.F4E2M1,
    24: DType.F8E8M0, 25: DType.U2, 26: DType.I2,
}  # fmt: skip
_MOST_BYTES = 2**40


def dtype_of(number: int, where: str) -> DType:
    """The element type behind a TensorProto.DataType number."""
    if number not in DTYPES:
        raise InvalidModel(f"{where} has element type {number}; ONNX defines 1 to {max(DTYPES)}")
    return DTYPES[number]


def array_of(tensor: onnx.TensorProto, folder: Path | None, where: str = "") -> Array:
    """The elements of a tensor; `folder` is where external data may live."""
    where = where or f"tensor {tensor.name!r}"
    dtype = dtype_of(tensor.data_type, where)
    shape = tuple(tensor.dims)
    _check_size(shape, dtype, where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external(tensor, dtype, shape, folder, where)
    if dtype is DType.STR:
        return _text(tensor.string_data, shape, where)
    if tensor.HasField("raw_data"):
        raw = np.frombuffer(tensor.raw_data, np.uint8)
        return _from_bytes(raw, dtype, shape, where)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InvalidModel(
            f"{where} does not hold the {list(shape)} elements it declares: {error}"
        ) from error


def _check_size(shape: tuple[int, ...], dtype: DType, where: str) -> None:
    if any(dim < 0 for dim in shape):
        raise InvalidModel(f"{where} has a negative size in its shape {list(shape)}")
    if math.prod(shape) * max(dtype.itemsize, 1) > _MOST_BYTES:
        raise InvalidModel(f"{where} declares the absurd shape {list(shape)}")


def _num_bytes(dtype: DType, shape: tuple[int, ...]) -> int:
    """What the elements take in a file, where small types are packed."""
    return -(-math.prod(shape) * dtype.bits // 8) if dtype is not DType.BOOL else math.prod(shape)


def _from_bytes(raw: Array, dtype: DType, shape: tuple[int, ...], where: str) -> Array:
    expected = _num_bytes(dtype, shape)
    if raw.nbytes != expected:
        raise InvalidModel(
            f"{where} has {raw.nbytes} bytes of data; {dtype.value}{list(shape)} needs {expected}"
        )
    if dtype.bits < 8 and dtype is not DType.BOOL:
        return _unpacked(raw, dtype, math.prod(shape)).reshape(shape)
    return raw.view(dtype.numpy.newbyteorder("<") if dtype.itemsize > 1 else dtype.numpy).reshape(
        shape
    )


def _unpacked(raw: Array, dtype: DType, count: int) -> Array:
    """Elements of 2 or 4 bits, lowest bits first."""
    shifts = np.arange(0, 8, dtype.bits, dtype=np.uint8)
    codes = ((raw[:, None] >> shifts) & ((1 << dtype.bits) - 1)).ravel()[:count]
    if dtype.is_signed_int:
        sign = 1 << (dtype.bits - 1)
        return ((codes.astype(np.int8) ^ sign) - sign).astype(dtype.numpy)
    return codes.astype(dtype.numpy) if dtype.is_int else codes.astype(np.uint8).view(dtype.numpy)


def _text(items: Any, shape: tuple[int, ...], where: str) -> Array:
    if len(items) != math.prod(shape):
        raise InvalidModel(
            f"{where} has {len(items)} texts; shape {list(shape)} needs {math.prod(shape)}"
        )
    return text_array([item.decode("utf-8", "surrogateescape") for item in items]).reshape(shape)


def text_array(items: list[str]) -> Array:
    """Texts as an array of str objects."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


# -- external data -------------------------------------------------------------------------


def _external(
    tensor: onnx.TensorProto, dtype: DType, shape: tuple[int, ...], folder: Path | None, where: str
) -> Array:
    fields = {entry.key: entry.value for entry in tensor.external_data}
    path = _inside(folder, fields.get("location", ""), where)
    expected = _num_bytes(dtype, shape)
    offset, length = _number(fields, "offset", 0, where), _number(fields, "length", expected, where)
    if length != expected:
        raise InvalidModel(
            f"{where} declares {length} external bytes; {dtype.value}{list(shape)} needs {expected}"
        )
    size = path.stat().st_size
    if offset + length > size:
        raise InvalidModel(
            f"{where} needs bytes {offset} to {offset + length} of {path.name!r}, which has {size};"
            " the file is truncated or belongs to another model"
        )
    if dtype is DType.STR:
        raise Unsupported(f"{where}: texts cannot be external data; store them in the model file")
    if not length:
        return np.zeros(shape, dtype.numpy)
    mapped = np.memmap(path, np.uint8, "r", offset, (length,))
    return _from_bytes(np.asarray(mapped), dtype, shape, where)


def _number(fields: dict[str, str], key: str, default: int, where: str) -> int:
    text = fields.get(key, str(default))
    if not text.isdigit():
        raise InvalidModel(f"{where}: its external {key} is {text!r}; expected a number")
    return int(text)


def _inside(folder: Path | None, location: str, where: str) -> Path:
    """The data file, which must lie inside the model's folder, symbolic links followed."""
    if folder is None:
        raise InvalidModel(
            f"{where} has its data in the file {location!r}; give the model's path,"
            " not its contents"
        )
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or not path.is_relative_to(root):
        raise InvalidModel(f"{where} points to {location!r}, outside the model's folder")
    if not path.is_file():
        raise InvalidModel(
            f"{where} needs the data file {location!r}, which is not beside the model"
        )
    return path


def dense(sparse: onnx.SparseTensorProto, folder: Path | None) -> Array:
    """A sparse tensor written out."""
    where = f"sparse tensor {sparse.values.name!r}"
    values, indices = array_of(sparse.values, folder), array_of(sparse.indices, folder)
    shape = tuple(sparse.dims)
    _check_size(shape, DType.of(values.dtype), where)
    result = np.zeros(shape, values.dtype)
    try:
        places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
        result.reshape(-1)[places] = values
    except (IndexError, ValueError) as error:
        raise InvalidModel(
            f"{where} has indices outside its shape {list(shape)}: {error}"
        ) from error
    return result

"""Weights in the safetensors format: written by the library, mapped on reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from safetensors.numpy import save_file

from tuili.errors import InvalidModel, NotFound
from tuili.tensors import Array

_MOST_HEADER_BYTES = 100_000_000  # as in the reference implementation


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode_entry: Final = msgspec.json.Decoder(_Entry).decode


def write_weights(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays as bytes: what they mean is in the graph's own file."""
    flat = {key: np.frombuffer(_bytes(array), np.uint8) for key, array in arrays.items()}
    save_file(flat, path)


def _bytes(array: Array) -> bytes:
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    return np.ascontiguousarray(little).tobytes()


def map_weights(path: Path) -> dict[str, Array]:
    """The bytes of every array, mapped from the file; raises InvalidModel for a damaged one."""
    if not path.is_file():
        raise NotFound(f"the weights file {str(path)!r} is missing; it belongs beside the graph")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise InvalidModel(f"{path} is no safetensors file, or a truncated one")
        header = file.read(length)
    entries = _entries(header, path)
    start = 8 + length
    if not entries or size == start:
        return {key: np.zeros(0, np.uint8) for key in entries}
    data = np.memmap(path, np.uint8, "r", start)
    return {key: _piece(data, key, entry, path) for key, entry in entries.items()}


def _entries(header: bytes, path: Path) -> dict[str, _Entry]:
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        return {key: _decode_entry(text) for key, text in raw.items()}
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidModel(f"{path} is no safetensors file: {error}") from error


def _piece(data: Array, key: str, entry: _Entry, path: Path) -> Array:
    start, end = entry.data_offsets
    fits = entry.dtype == "U8" and math.prod(entry.shape) == end - start
    if not fits or not 0 <= start <= end <= data.size:
        raise InvalidModel(
            f"{path}: tensor {key!r} claims bytes {start} to {end} of {data.size}; it is damaged"
        )
    return data[start:end]

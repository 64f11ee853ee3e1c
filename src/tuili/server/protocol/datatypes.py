"""The datatypes of the KServe v2 protocol and their bytes: raw buffers to arrays and back.

BYTES travels as a little-endian u32 length before each element (extension_binary_data.md); in
memory it is an object array of `bytes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import Array
from tuili.server.steps import Steps, at_once
from tuili.tensors import DType

Buffer = bytes | bytearray | memoryview

NUMPY: Final[dict[str, np.dtype]] = {kind.kserve: kind.numpy for kind in DType if kind.kserve}
BYTE_SIZE: Final[dict[str, int]] = {name: dtype.itemsize for name, dtype in NUMPY.items()}
DTYPE: Final[dict[str, DType]] = {kind.kserve: kind for kind in DType if kind.kserve}

# extension_binary_data.md: these have no JSON (and no typed gRPC) form.
RAW_ONLY: Final = frozenset(("FP16", "BF16"))


# What arrays of NumPy have at most: dims, and elements that an address space could hold. One that
# is empty has strides all the same, as if it were not.
MOST_DIMS: Final = 32
_MOST_ELEMENTS: Final = 1 << 62
_MOST_IF_EMPTY: Final = 1 << 59

# Of text or of JSON, that are read or written before others have their turn: some milliseconds.
TURN_ELEMENTS: Final = 16_384


def element_count(shape: Sequence[int]) -> int:
    """The number of elements of a concrete shape, refusing what cannot be one."""
    if len(shape) > MOST_DIMS:
        raise InvalidArgument(f"a shape has {len(shape)} dims, expected {MOST_DIMS} at most")
    extent = 1
    for dim in shape:
        if dim < 0:
            raise InvalidArgument(f"shape {list(shape)} has the negative dim {dim}")
        extent *= dim or 1
    empty = 0 in shape
    if extent > (_MOST_IF_EMPTY if empty else _MOST_ELEMENTS):
        raise InvalidArgument(f"shape {list(shape)} has too many elements")
    return 0 if empty else extent


def decode(name: str, datatype: str, shape: tuple[int, ...], raw: Buffer) -> Array:
    """The array that `raw` holds: a view for fixed-size types, an object array for BYTES."""
    if datatype == "BYTES":
        return decode_bytes(name, shape, raw)
    try:
        dtype = NUMPY[datatype]
    except KeyError:
        raise InvalidArgument(f"input {name!r} has the unknown datatype {datatype!r}") from None
    expected = element_count(shape) * dtype.itemsize
    if len(raw) != expected:
        raise InvalidArgument(
            f"input {name!r}: {len(raw)} bytes of data, but {datatype} {list(shape)} takes "
            f"{expected}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def decode_bytes(name: str, shape: tuple[int, ...], raw: Buffer, model: str = "") -> Array:
    """An object array from length-prefixed elements; refuses short and left-over bytes."""
    return at_once(read_bytes(name, shape, raw, model))


def read_bytes(name: str, shape: tuple[int, ...], raw: Buffer, model: str = "") -> Steps[Array]:
    """The same, with turns for others: a megabyte may hold a quarter of a million elements."""
    where = f"for inference input '{name}'" + (f" for model '{model}'" if model else "")
    count = element_count(shape)
    view = memoryview(raw)
    size = len(view)
    if count * 4 > size:
        raise InvalidArgument(_too_few(view, count, where))
    items = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        end = at + 4 + int.from_bytes(view[at : at + 4], "little")
        if at + 4 > size or end > size:
            raise InvalidArgument(_too_few(view, count, where))
        items[index] = bytes(view[at + 4 : end])
        at = end
        if not index % TURN_ELEMENTS and index:
            yield
    if at + 4 <= size:
        # As Triton, which stops at the first that is too many.
        raise InvalidArgument(
            f"unexpected number of string elements {count + 1} {where}, expecting {count}"
        )
    if at != size:
        raise InvalidArgument(_no_length(size - at, where))
    return items.reshape(shape)


def _elements_in(view: memoryview, at: int) -> tuple[int, int]:
    """How many whole elements begin at `at`, and where they end."""
    count = 0
    while at + 4 <= len(view):
        end = at + 4 + int.from_bytes(view[at : at + 4], "little")
        if end > len(view):
            break
        at, count = end, count + 1
    return count, at


def _too_few(view: memoryview, expected: int, where: str) -> str:
    """What is wrong with a buffer that ends before its last element does."""
    count, at = _elements_in(view, 0)
    left = len(view) - at
    if not left:
        return f"expected {expected} string elements {where}, got {count}"
    if left < 4:
        return _no_length(left, where)
    size = int.from_bytes(view[at : at + 4], "little")
    return (
        f"incomplete string data {where}, expecting string of length {size} but only {left - 4} "
        "bytes available"
    )


def _no_length(left: int, where: str) -> str:
    return (
        f"incomplete string length indicator {where}, expecting 4 bytes but only {left} bytes "
        "available. Please make sure the string length indicator is in one buffer."
    )


def encode(array: Array, datatype: str) -> bytes | memoryview:
    """The wire bytes of an array: a view of contiguous memory, or length-prefixed BYTES."""
    if datatype == "BYTES":
        return encode_bytes(array)
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def encode_bytes(array: Array) -> bytes:
    """Length-prefixed elements in row-major order; text becomes UTF-8."""
    return b"".join(at_once(write_bytes(array)))


def write_bytes(array: Array) -> Steps[list[bytes]]:
    """The same in pieces, with turns for others."""
    flat = array.reshape(-1)
    found: list[bytes] = []
    for at in range(0, flat.size, TURN_ELEMENTS):
        if at:
            yield
        parts: list[bytes] = []
        for item in flat[at : at + TURN_ELEMENTS].tolist():
            data = item if isinstance(item, bytes) else str(item).encode(errors="surrogateescape")
            parts.append(len(data).to_bytes(4, "little"))
            parts.append(data)
        found.append(b"".join(parts))
    return found

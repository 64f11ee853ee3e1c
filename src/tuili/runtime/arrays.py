"""NumPy arrays as native code sees them: their address, and native memory as arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from tuili.tensors import Array

# In `ndarray.flags.num`: rows are contiguous and elements aligned.
NATIVE_FLAGS = 0x0101

_DATA_AT = object.__basicsize__
_word_at = ctypes.c_size_t.from_address


def _address_in_object(array: Array) -> int:
    """The first field of an array object after the head is the address of its data.

    NumPy's C API fixes this (`PyArrayObject_fields.data`); reading it takes a tenth of the time
    of `array.ctypes.data`, which counts for models of a few microseconds.
    """
    return _word_at(id(array) + _DATA_AT).value


def _address_by_interface(array: Array) -> int:
    return array.ctypes.data


def _choose_address() -> Callable[[Array], int]:
    probe = np.arange(6, dtype=np.float32)[2:]
    try:
        fits = _address_in_object(probe) == _address_by_interface(probe)
    except (TypeError, ValueError):
        fits = False
    return _address_in_object if fits else _address_by_interface


address_of = _choose_address()


class NativeBlock:
    """Memory that native code allocated, as long as an array looks at it."""

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        free: Callable[[int], None],
    ) -> None:
        self._address = address
        self._free = free
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": (int(np.prod(shape)) * dtype.itemsize,),
            "typestr": "|u1",
        }

    def __del__(self) -> None:
        self._free(self._address)


def adopt(
    address: int, shape: tuple[int, ...], dtype: np.dtype[Any], free: Callable[[int], None]
) -> Array:
    """Native memory as an array, without a copy; `free` is called when it is no longer used."""
    if 0 in shape:
        free(address)
        return np.empty(shape, dtype)
    block = NativeBlock(address, shape, dtype, free)
    return np.asarray(block).view(dtype).reshape(shape)

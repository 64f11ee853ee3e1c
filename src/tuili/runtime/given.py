"""What a caller hands in for an input, as an array: arrays of other packages, numbers, lists.

An array says what its elements are, so that one of another type is refused further on. Python's
numbers do not: they become what the input is, as long as no float is cut to an integer and nothing
leaves the range.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tuili.errors import InvalidArgument
from tuili.tensors import Array, TensorSpec

# By the kind of an input's dtype: what kinds of Python's numbers it takes. ml_dtypes' are "V".
_TAKES = {"b": "b", "i": "bi", "u": "bi", "f": "bif", "V": "bif", "c": "bifc"}


def as_array(spec: TensorSpec, value: object, where: str) -> Array:
    """The array of an input; raises InvalidArgument for what is none."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    try:
        if isinstance(value, bool | int | float | complex | list | tuple):
            return _of_numbers(spec, value)
        if hasattr(value, "__array__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)  # pyright: ignore[reportArgumentType] - looked for above
        if isinstance(value, memoryview):
            return np.asarray(value)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: input {spec.name!r}, {_name(value)}: {error}") from None
    except (TypeError, ValueError, RuntimeError, OverflowError, BufferError) as error:
        raise InvalidArgument(
            f"{where}: input {spec.name!r} is a {_name(value)}, of which NumPy cannot make an "
            f"array for {spec}: {error}"
        ) from error
    raise InvalidArgument(
        f"{where}: input {spec.name!r} is a {_name(value)}, expected a NumPy array for {spec}"
    )


def _of_numbers(spec: TensorSpec, value: object) -> Array:
    found, wanted = np.asarray(value), spec.dtype.numpy
    if found.size and found.dtype.kind not in _TAKES.get(wanted.kind, ""):
        raise InvalidArgument(f"its elements are {found.dtype}, expected {spec.dtype.value}")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        made = found.astype(wanted)
    if found.dtype.kind == "i" and made.dtype.kind in "iu" and not np.array_equal(made, found):
        raise InvalidArgument(f"a number leaves the range of {spec.dtype.value}")
    return made


def _name(value: Any) -> str:
    return type(value).__name__

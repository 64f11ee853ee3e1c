"""How a list of arrays crosses to a model host and back: their elements in a row, and their shapes.

The list `x` is the two tensors `x`, of one dim, and `x#shapes`, of a row for each array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tuili.tensors import Array

SHAPES: Final = "#shapes"


def packed(arrays: Sequence[Array], dtype: np.dtype[Any], rank: int) -> tuple[Array, Array]:
    """Elements and shapes of arrays of that rank."""
    flat = np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0, dtype)
    shapes = np.array([array.shape for array in arrays], np.int64).reshape(len(arrays), rank)
    return flat, shapes


def unpacked(flat: Array, shapes: Array) -> list[Array]:
    """The arrays, as views."""
    found: list[Array] = []
    start = 0
    for shape in shapes.tolist():
        stop = start + int(np.prod(shape, dtype=np.int64))
        found.append(flat[start:stop].reshape(shape))
        start = stop
    return found

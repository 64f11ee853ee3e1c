"""Long arrays: what stands for a JSON array that is too long to be looked at in one go."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import numpy as np

from tuili.server.protocol.datatypes import MOST_DIMS
from tuili.server.protocol.messages import Array
from tuili.server.steps import Steps

SHORT: Final = 4096  # elements of a plain array at most
_NUMBERS: Final = frozenset[type]((int, float))
_INTEGERS: Final = frozenset[type]((int,))
_FLAGS: Final = frozenset[type]((bool,))
_LISTS: Final = frozenset[type]((list,))


class LongArray:
    """The elements of a long array in parts: arrays of numbers or of flags, and lists of others.

    Its elements may be long arrays themselves.
    """

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[list[Any] | Array] = []
        self.size = 0

    def __repr__(self) -> str:
        return f"an array of {self.size} elements"

    def add(self, part: list[Any]) -> None:
        """Some elements more."""
        if part:
            self.size += len(part)
            found = packed(part)
            self.parts.append(part if found is None else found)

    def leaves(self) -> Iterator[list[Any] | Array]:
        """All values in row-major order, some thousand at a time; each is forgotten then."""
        self.parts.reverse()
        while self.parts:
            part = self.parts.pop()
            if isinstance(part, np.ndarray):
                yield part.reshape(-1)
            else:
                yield from _leaves_of(part)

    def forget(self) -> Steps[None]:
        """Give its elements back, a few at a time: to free a million takes long."""
        for _ in self.leaves():
            yield

    def plain(self) -> list[Any] | None:
        """Its elements as a list, if they are few and no arrays."""
        if self.size > SHORT:
            return None
        found: list[Any] = []
        for part in self.parts:
            if isinstance(part, np.ndarray) and part.ndim > 1:
                return None
            found += part.tolist() if isinstance(part, np.ndarray) else part
        return None if any(isinstance(item, list | LongArray) for item in found) else found


def forget(value: Any) -> Steps[None]:
    """Give back the long arrays that a document has where they usually are."""
    if isinstance(value, LongArray):
        yield from value.forget()
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from forget(item)


def _leaves_of(part: list[Any]) -> Iterator[list[Any] | Array]:
    if not {list, LongArray} & set(map(type, part)):
        yield part
        return
    values: list[Any] = []
    for item in part:
        if isinstance(item, LongArray):
            yield values
            yield from item.leaves()
            values = []
        elif isinstance(item, list):
            values += flatten(item)
        else:
            values.append(item)
    yield values


def flatten(data: Any) -> Iterator[Any]:
    """The values of nested lists, in row-major order."""
    for item in data:
        if isinstance(item, list):
            yield from flatten(item)  # the JSON depth limit bounds this recursion
        else:
            yield item


def packed(values: list[Any]) -> Array | None:
    """The array of lists in each other, all numbers or all flags; None where they are not.

    NumPy by itself takes text and numbers for text, and integers beyond its own for floats.
    """
    dims, level = [len(values)], values
    while level and type(level[0]) is list:
        if frozenset[type](map(type, level)) != _LISTS:
            return None
        lengths = set(map(len, level))
        if len(lengths) > 1:
            return None
        if len(dims) == MOST_DIMS:
            return None  # As deep as JSON may be, arrays cannot be.
        dims.append(lengths.pop())
        level = list(chain.from_iterable(level))
    types = frozenset[type](map(type, level))
    if not types <= _NUMBERS and types != _FLAGS:
        return None
    try:
        found = np.array(level)
    except OverflowError:
        return None
    if found.dtype.kind not in ("iu" if types == _INTEGERS else "biuf"):
        return None
    return found.reshape(dims)

"""Region: a part of a client's POSIX shared memory, mapped.

A client may shrink its object after registering it: every access first compares with its present
size, and what shrinks while a run reads it is caught by `sigbus`.
"""

from __future__ import annotations

import mmap
import os
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np

from tuili.errors import InternalError, InvalidArgument
from tuili.server.memory.sigbus import GUARD, Guarded
from tuili.server.protocol.messages import Array, Parameters

_ROOT: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
_SIZE_MAX: Final = (1 << 64) - 1


class Droppable(Protocol):
    """What names a region for requests to come."""

    def drop(self) -> None:
        """No new requests."""


@dataclass(slots=True, eq=False)
class Region:
    """One registered region. `holders` are the requests under way that read from or write to it.

    Once it is `unwanted`, it goes with the last of them.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    memory: mmap.mmap
    guarded: Guarded
    holders: int = 0
    unwanted: bool = False
    standing: weakref.WeakSet[Droppable] = field(default_factory=weakref.WeakSet[Droppable])

    @classmethod
    def map(cls, name: str, key: str, offset: int, byte_size: int) -> Self:
        """Map `byte_size` bytes at `offset` of the object `key`, which must hold them."""
        failed = f"failed to register shared memory region '{name}': "
        path = _ROOT / key.removeprefix("/")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise InternalError(f"Unable to open shared memory region: '{key}'") from None
        try:
            if offset < 0 or byte_size <= 0 or offset + byte_size > 1 << 62:
                raise InvalidArgument(
                    failed + f"invalid args, offset {offset}, byte_size {byte_size}"
                )
            size = os.fstat(descriptor).st_size
            if offset + byte_size > size:
                raise InvalidArgument(
                    failed + f"invalid args, it ends at byte {offset + byte_size} of {size}"
                )
            memory = mmap.mmap(descriptor, offset + byte_size)
        except (OSError, ValueError) as error:
            raise InvalidArgument(failed + f"invalid args, {error}") from error
        finally:
            os.close(descriptor)  # the mapping has one of its own
        return cls(name, key, offset, byte_size, memory, GUARD.watch(memory))

    def place(self, parameters: Parameters) -> memoryview:
        """The bytes that a tensor's parameters name."""
        name = self.name
        if "shared_memory_byte_size" not in parameters:
            raise InvalidArgument(
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' "
                f"parameter for region '{name}'"
            )
        offset = _whole(parameters, "shared_memory_offset", 0)
        size = _whole(parameters, "shared_memory_byte_size", -1)
        if offset < 0 or offset > self.byte_size:
            raise InvalidArgument(f"Invalid offset for shared memory region: '{name}'")
        if size > _SIZE_MAX - offset:
            raise InvalidArgument(
                f"Integer overflow detected: byte_size ({size}) + offset ({offset}) exceeds "
                f"maximum value ({_SIZE_MAX}) for region '{name}'"
            )
        if size < 0 or offset + size > self.byte_size:
            raise InvalidArgument(f"Invalid offset + byte size for shared memory region: '{name}'")
        start = self.offset + offset
        self.require_whole()
        if self.memory.size() < start + size:
            raise self._truncated()
        return memoryview(self.memory)[start : start + size]

    @property
    def whole(self) -> bool:
        """Whether all of its memory is there."""
        return not self.guarded.lost and self.memory.size() >= self.offset + self.byte_size

    def forget(self) -> None:
        """Its name means another region from now on, or none."""
        for each in list(self.standing):
            each.drop()

    def require_whole(self) -> None:
        """InvalidArgument where its memory was taken away while someone touched it."""
        if self.guarded.lost:
            raise self._truncated()

    def _truncated(self) -> InvalidArgument:
        return InvalidArgument(f"shared memory region '{self.name}' was truncated by its owner")

    def json(self) -> dict[str, Any]:
        """As the status extension prints it."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }


def apart(array: Array) -> Array:
    """The array, or a copy of one in memory that a client may change at any time."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    shared = isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)
    return array.copy() if shared else array


def _whole(parameters: Parameters, key: str, default: int) -> int:
    value = parameters.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"parameter {key!r} must be a whole number, got {value!r}")
    return value

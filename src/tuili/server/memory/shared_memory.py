"""System shared memory regions of clients: register, read inputs from, write outputs to.

Off unless the server allows it, because a region lets a client name memory of this machine. A
client may shrink its object after registering it: every access first compares with its present
size, and what shrinks while a run reads it is caught by `sigbus`.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tuili.errors import AlreadyExists, InternalError, InvalidArgument, NotFound, Unsupported
from tuili.server.memory.sigbus import GUARD, Guarded
from tuili.server.protocol.datatypes import BYTE_SIZE, decode, element_count, encode
from tuili.server.protocol.messages import Array, InputTensor, Parameters

DISABLED: Final = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)
_ROOT: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
_SIZE_MAX: Final = (1 << 64) - 1
_KEY: Final = re.compile(r"/?[^/\0]{1,250}")
# Names of segments that belong to servers, ours and Triton's: never a client's.
_RESERVED: Final = ("triton_python_backend_shm_region_", "tuili_host_")


@dataclass(slots=True)
class Region:
    """One registered region, mapped."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int
    memory: mmap.mmap
    guarded: Guarded

    def json(self) -> dict[str, Any]:
        """As the status extension prints it."""
        return {
            "name": self.name,
            "key": self.key,
            "offset": self.offset,
            "byte_size": self.byte_size,
        }


class Regions:
    """The regions that clients registered."""

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map `byte_size` bytes at `offset` of the POSIX object `key`."""
        self._require_allowed()
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        failed = f"failed to register shared memory region '{name}': "
        bare = key.removeprefix("/")
        reserved = next((prefix for prefix in _RESERVED if key.strip("/").startswith(prefix)), "")
        if reserved:
            raise InvalidArgument(
                f"cannot register shared memory region '{name}' with key '{key}' as the key "
                f"contains the reserved prefix '{reserved}'"
            )
        if not _KEY.fullmatch(key) or bare in (".", ".."):
            raise InvalidArgument(
                f"cannot register shared memory region '{name}' - invalid shm key '{key}'"
            )
        try:
            descriptor = os.open(_ROOT / bare, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
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
        except (OSError, ValueError, InvalidArgument) as error:
            os.close(descriptor)
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(failed + "invalid args") from error
        guarded = GUARD.watch(memory)
        self._regions[name] = Region(name, key, offset, byte_size, descriptor, memory, guarded)

    def unregister(self, name: str = "") -> None:
        """Forget one region or all; views of requests in flight keep their mapping alive."""
        self._require_allowed()
        names = [name] if name else list(self._regions)
        for each in names:
            region = self._regions.pop(each, None)
            if region is not None:
                os.close(region.descriptor)

    def close(self) -> None:
        """Forget all regions, whether clients may use them or not."""
        for region in self._regions.values():
            os.close(region.descriptor)
        self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """One region or all."""
        if not name:
            return [region.json() for region in self._regions.values()]
        if name not in self._regions:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return [self._regions[name].json()]

    def require_whole(self, tensors: Sequence[InputTensor]) -> None:
        """Refuse inputs whose memory was taken away while they were read."""
        for tensor in tensors:
            name = str((tensor.parameters or {}).get("shared_memory_region", ""))
            region = self._regions.get(name)
            if region is not None and region.guarded.lost:
                raise _truncated(name)

    def read(self, tensor: InputTensor, model: str = "") -> Array:
        """The input for a model that lies in shared memory, as a view of it."""
        view = self._slice(tensor.parameters or {})
        if tensor.datatype in BYTE_SIZE and tensor.datatype != "BYTES":
            expected = element_count(tensor.shape) * BYTE_SIZE[tensor.datatype]
            if len(view) != expected:
                raise InvalidArgument(
                    f"input byte size mismatch for input '{tensor.name}' for model '{model}'. "
                    f"Expected {expected}, got {len(view)}"
                )
        return decode(tensor.name, tensor.datatype, tensor.shape, view)

    def write(self, name: str, parameters: Parameters, array: Array, datatype: str) -> None:
        """Put the output `name` where the request wants it."""
        view = self._slice(parameters)
        data = encode(array, datatype)
        if len(data) > len(view):
            raise InvalidArgument(
                f"shared memory size specified with the request for output '{name}' ({len(view)} "
                f"bytes) should be at least {len(data)} bytes to hold the results"
            )
        np.frombuffer(view, np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        if GUARD.losses:
            self.require_whole([InputTensor(name, datatype, (), None, parameters)])

    def _slice(self, parameters: Parameters) -> memoryview:
        self._require_allowed()
        name = str(parameters.get("shared_memory_region", ""))
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{name}'")
        if "shared_memory_byte_size" not in parameters:
            raise InvalidArgument(
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region' "
                f"parameter for region '{name}'"
            )
        offset = _whole(parameters, "shared_memory_offset", 0)
        size = _whole(parameters, "shared_memory_byte_size", -1)
        if offset < 0 or offset > region.byte_size:
            raise InvalidArgument(f"Invalid offset for shared memory region: '{name}'")
        if size > _SIZE_MAX - offset:
            raise InvalidArgument(
                f"Integer overflow detected: byte_size ({size}) + offset ({offset}) exceeds "
                f"maximum value ({_SIZE_MAX}) for region '{name}'"
            )
        if size < 0 or offset + size > region.byte_size:
            raise InvalidArgument(f"Invalid offset + byte size for shared memory region: '{name}'")
        start = region.offset + offset
        if region.guarded.lost or os.fstat(region.descriptor).st_size < start + size:
            raise _truncated(name)
        return memoryview(region.memory)[start : start + size]

    def _require_allowed(self) -> None:
        if not self.allowed:
            raise Unsupported(DISABLED)


def _truncated(name: str) -> InvalidArgument:
    return InvalidArgument(f"shared memory region '{name}' was truncated by its owner")


def _whole(parameters: Parameters, key: str, default: int) -> int:
    value = parameters.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"parameter {key!r} must be a whole number, got {value!r}")
    return value

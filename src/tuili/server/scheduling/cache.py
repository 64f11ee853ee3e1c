"""ResponseCache: outputs by the content of their inputs, within bounds of bytes and age."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tuili.server.protocol.messages import Array, InferRequest

Outputs = dict[str, Array]

# Parameters that say how a request is treated; all others are the model's affair.
_OF_THE_SERVER: Final = frozenset(("priority", "timeout", "client_id"))
# What Python takes for an entry and for an array, measured: most of a small answer.
_ENTRY_BYTES: Final = 400
_ARRAY_BYTES: Final = 150


@dataclass(slots=True)
class _Entry:
    outputs: Outputs
    size: int
    made: float


class ResponseCache:
    """Least recently used outputs of one server; `owner` keeps model versions apart.

    An owner is a number that is never used twice, so a version that was loaded anew starts with
    nothing: an answer is never stale.
    """

    def __init__(self, max_bytes: int, ttl_s: float = 0.0) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._owners = 0
        self.size_bytes = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def new_owner(self) -> int:
        """A number that tells one loaded model version from all others."""
        self._owners += 1
        return self._owners

    def get(self, key: bytes, now: float, *, stale: bool = False) -> Outputs | None:
        """The outputs for a key, or None; those past their time only for who takes `stale` ones."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._ttl_s and now >= entry.made + self._ttl_s and not stale:
            # Not moved to the end: it goes first when room is needed.
            return None
        self._entries.move_to_end(key)
        return entry.outputs

    def put(self, key: bytes, outputs: Mapping[str, Array], now: float) -> None:
        """Keep copies of outputs; what is least recently used goes when there is no room."""
        size = _ENTRY_BYTES + sum(_size(array) for array in outputs.values())
        if size > self._max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        while self.size_bytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
            self.evictions += 1
        # Copies: the originals may be slices that keep a whole batch alive.
        kept = {name: array.copy() for name, array in outputs.items()}
        for array in kept.values():
            array.flags.writeable = False
        self._entries[key] = _Entry(kept, size, now)
        self.size_bytes += size

    def _drop(self, key: bytes) -> None:
        self.size_bytes -= self._entries.pop(key).size


def key_of(owner: int | bytes, arrays: Mapping[str, Array], told: str = "") -> bytes:
    """A key of 16 bytes for a model version (by number, or by content) and its inputs.

    `told` is what else its answer depends on.
    """
    start = owner if isinstance(owner, bytes) else str(owner).encode()
    digest = hashlib.blake2b(start, digest_size=16)
    if told:
        digest.update(f"\0{told}\0".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        if array.dtype == object:
            for item in array.reshape(-1).tolist():
                data = item if isinstance(item, bytes) else str(item).encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.digest()


def told_of(request: InferRequest, outputs: Iterable[str]) -> str:
    """What a request says beside its inputs to a model that is told: what is asked, and how.

    `outputs` are all that there are, which a request asks for that names none.
    """
    wanted = {output.name for output in request.outputs or ()} or set(outputs)
    parameters = request.parameters or {}
    own = sorted((key, value) for key, value in parameters.items() if key not in _OF_THE_SERVER)
    return repr((sorted(wanted), own))


def _size(array: Array) -> int:
    if array.dtype == object:
        return _ARRAY_BYTES + sum(len(item) + 50 for item in array.reshape(-1).tolist())
    return _ARRAY_BYTES + array.nbytes

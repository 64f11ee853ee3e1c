"""What a server and a model host say to each other, and how tensors lie in the memory they share.

Messages are MessagePack over a SEQPACKET socket: it keeps message boundaries, wakes the other side
and reports a death at once. Tensors of batches never pass through it: they lie in the memfd of a
slot, where either side may make room by growing the file and telling the new size. Those of calls
and of single answers lie in the message while they are small, and in a memfd of its own otherwise.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from tuili.backends.requests import Told
from tuili.tensors import Array, DType, TensorSpec, parse_shape

ALIGNMENT: Final = 64
FIRST_CAPACITY: Final = 1 << 20
_NUMPY: Final = {kind.value: kind.numpy for kind in DType}
MAX_MESSAGE: Final = 1 << 17
# A memfd costs both sides as much as copying some hundred kilobytes, which a socket does not hold.
_MAX_ENCLOSED: Final = 1 << 14
END_S: Final = 30.0


class Tensor(msgspec.Struct, array_like=True, gc=False):
    """Where one tensor lies in a slot; `dtype` is tuili's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class Spec(msgspec.Struct, array_like=True):
    """One input or output of the model; dims are numbers or expressions."""

    name: str
    dtype: str
    shape: list[int | str]


class Load(msgspec.Struct, tag=True, array_like=True):
    """Load this model; `slots` are descriptors of shared memory, `calls` of a socket for calls."""

    backend: str
    path: bytes  # need not be UTF-8
    threads: int
    parameters: dict[str, str]
    inputs: list[Spec]
    outputs: list[Spec]
    max_batch_size: int
    decoupled: bool
    instance: int
    config_json: str
    slots: list[int]
    calls: int


class Run(msgspec.Struct, tag=True, array_like=True):
    """Run on the tensors in a slot of `capacity` bytes.

    With `streams` each request may be answered any number of times: its answers have its number,
    and the slot is free once the model has taken the batch (`whole`: has given all answers).
    """

    slot: int
    capacity: int
    tensors: list[Tensor]
    told: list[Told] = []
    streams: list[int] = []
    whole: bool = False


class Loaded(msgspec.Struct, tag=True, array_like=True):
    """The model is loaded; `by_request`: it wants to be told what the requests of a batch say.

    With `says_ready` it may be asked whether it is ready. One that `has_end` ends itself, within
    `END_S`, when the socket of orders does.
    """

    inputs: list[Spec]
    outputs: list[Spec]
    by_request: bool = False
    config_json: str = ""
    says_ready: bool = False
    has_end: bool = False


class Readied(msgspec.Struct, tag=True, array_like=True):
    """Why the model is not ready, as it says itself; "" when it is."""

    reason: str


class Done(msgspec.Struct, tag=True, array_like=True):
    """The run is done in `run_ns`; its outputs lie in the slot."""

    slot: int
    capacity: int
    run_ns: int
    tensors: list[Tensor]


class One(msgspec.Struct, array_like=True):
    """The answer to one request of a batch: tensors, or an error of that `kind`."""

    tensors: list[Tensor]
    parameters: dict[str, Any] = {}
    kind: str = ""
    text: str = ""


class DoneEach(msgspec.Struct, tag=True, array_like=True):
    """The run is done; each request has its own answer."""

    slot: int
    capacity: int
    run_ns: int
    answers: list[One]


class Part(msgspec.Struct, tag=True, array_like=True):
    """One of many answers; its tensors are `enclosed`, or in a memfd that comes along.

    After a `final` one the stream has ended.
    """

    slot: int
    stream: int
    capacity: int
    answer: One
    final: bool = False
    enclosed: bytes = b""


class Ended(msgspec.Struct, tag=True, array_like=True):
    """A stream has ended, with an error of that `kind` if there is one."""

    slot: int
    stream: int
    kind: str = ""
    text: str = ""


class Spilled(msgspec.Struct, tag=True, array_like=True):
    """A message that the socket does not take: it lies in the memory of the slot."""

    slot: int
    capacity: int
    offset: int
    size: int


class Failed(msgspec.Struct, tag=True, array_like=True):
    """Loading (slot -1) or a run failed; `kind` is the name of the error of the tree."""

    slot: int
    text: str
    kind: str


def to_specs(tensors: Iterable[TensorSpec]) -> list[Spec]:
    """Specs as they travel."""
    return [
        Spec(t.name, t.dtype.value, [d if isinstance(d, int) else str(d) for d in t.shape])
        for t in tensors
    ]


def from_specs(specs: Iterable[Spec]) -> tuple[TensorSpec, ...]:
    """Specs as they are used."""
    return tuple(TensorSpec(s.name, DType(s.dtype), parse_shape(s.shape)) for s in specs)


Order = Load | Run
Answer = Loaded | Done | DoneEach | Part | Ended | Failed | Readied


class SlotMemory:
    """The shared memory of one slot, mapped here."""

    def __init__(self, descriptor: int, enclosed: bytearray | None = None) -> None:
        self.descriptor = descriptor
        self.capacity = 0
        self._map: mmap.mmap | bytearray | None = enclosed

    def fit(self, size: int) -> None:
        """Make the slot at least `size` bytes; grows by doubling."""
        # Empty tensors need a place too.
        if size > self.capacity or not self.capacity:
            capacity = max(FIRST_CAPACITY, 1 << max(size - 1, 0).bit_length())
            os.ftruncate(self.descriptor, capacity)
            self.remap(capacity)

    def remap(self, capacity: int) -> None:
        """Follow a growth by the other side."""
        if capacity != self.capacity:
            # The former mapping lives as long as views of it do.
            self._map = mmap.mmap(self.descriptor, capacity)
            self.capacity = capacity

    def put(self, start: int, raw: bytes) -> None:
        """Write bytes where there is room for them."""
        self.mapping[start : start + len(raw)] = raw

    def spilled(self, at: Spilled) -> bytes:
        """The message that the other side has put here."""
        self.remap(at.capacity)
        return bytes(self.mapping[at.offset : at.offset + at.size])

    def view(self, tensor: Tensor) -> Array:
        """A fixed-size tensor in place."""
        return np.ndarray(tensor.shape, _NUMPY[tensor.dtype], self.mapping, tensor.offset)

    def read(self, tensor: Tensor) -> Array:
        """A tensor: in place if its elements have a fixed size, else decoded."""
        if tensor.dtype == "str":
            raw = self.mapping[tensor.offset : tensor.offset + tensor.size]
            return _unpack_text(bytes(raw), tensor.shape)
        return self.view(tensor)

    @property
    def mapping(self) -> mmap.mmap | bytearray:
        """The memory as it is mapped now."""
        assert self._map is not None, "a slot is used before its first fit or remap"
        return self._map

    def write(self, arrays: Mapping[str, list[Array]], start: int = 0) -> list[Tensor]:
        """Lay out tensors from byte `start`; each is the concatenation of its parts."""
        laid: list[tuple[Tensor, list[Array], bytes]] = []
        for name, parts in arrays.items():
            start = -(-start // ALIGNMENT) * ALIGNMENT
            shape = joined_shape(parts)
            kind = DType.of(parts[0].dtype)
            text = b""
            if kind is DType.STR:
                text = b"".join(_pack_text(part) for part in parts)
            size = len(text) if kind is DType.STR else sum(part.nbytes for part in parts)
            laid.append((Tensor(name, kind.value, shape, start, size), parts, text))
            start += laid[-1][0].size
        self.fit(start)
        for tensor, parts, text in laid:
            if tensor.dtype == "str":
                self.mapping[tensor.offset : tensor.offset + tensor.size] = text
            elif len(parts) == 1:
                self.view(tensor)[...] = parts[0]
            else:
                np.concatenate(parts, out=self.view(tensor))
        return [tensor for tensor, _, _ in laid]

    def write_each(self, answers: Sequence[Mapping[str, Array]], start: int = 0) -> list[One]:
        """Lay out the outputs of several requests, which may have the same names."""
        joined = {
            f"{at}/{name}": [array]
            for at, outputs in enumerate(answers)
            for name, array in outputs.items()
        }
        found = [One([]) for _ in answers]
        for tensor in self.write(joined, start):
            at, _, tensor.name = tensor.name.partition("/")
            found[int(at)].tensors.append(tensor)
        return found


class Parcel(SlotMemory):
    """Memory for the tensors of one message: in it (`enclosed`), or a memfd that goes with it."""

    def __init__(self) -> None:
        super().__init__(-1)

    def fit(self, size: int) -> None:
        """Make room; what is small needs no file."""
        if size <= _MAX_ENCLOSED:
            self._map = bytearray(max(size, 1))
        else:
            self.descriptor = os.memfd_create("tuili_call")
            super().fit(size)

    @property
    def enclosed(self) -> bytes:
        """What goes in the message itself."""
        return bytes(self.mapping) if self.descriptor < 0 else b""


def joined_shape(parts: list[Array]) -> tuple[int, ...]:
    """The shape of parts one after the other."""
    if len(parts) == 1:
        return parts[0].shape
    return (sum(len(part) for part in parts), *parts[0].shape[1:])


def _pack_text(array: Array) -> bytes:
    pieces: list[bytes] = []
    for item in array.reshape(-1).tolist():
        data = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")
        pieces.append(len(data).to_bytes(4, "little"))
        pieces.append(data)
    return b"".join(pieces)


def _unpack_text(raw: bytes, shape: Iterable[int]) -> Array:
    dims = tuple(shape)
    items = np.empty(int(np.prod(dims)), dtype=object)
    at = 0
    for index in range(len(items)):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        items[index] = raw[at + 4 : end]
        at = end
    return items.reshape(dims)

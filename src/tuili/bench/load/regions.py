"""Shared memory of the load generator: one region per request, inputs first, then the outputs."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from tuili.bench.load.answers import Expectation, Outputs
from tuili.bench.load.exchange import Wrong
from tuili.server.protocol.datatypes import encode
from tuili.tensors import Array

_ROOT: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
_ALIGNMENT: Final = 64
_CANARY: Final = 64  # bytes of an output that are spoilt before each request, and looked at after
_WHOLE_EVERY: Final = 16  # and how often all of it is compared
_SPOILT: Final = 0xA5


@dataclass(frozen=True, slots=True)
class Output:
    """Where an output will lie, and what it must be."""

    name: str
    offset: int
    size: int
    expected: Array


@dataclass(slots=True)
class Places:
    """One region with the tensors of one request."""

    region: str
    key: str
    size: int
    memory: mmap.mmap
    inputs: list[tuple[str, Array, int, int]]
    outputs: list[Output]
    asked: int = field(default=0)

    def spoil(self) -> None:
        """Overwrite the start of every output, so that an old one cannot pass for an answer."""
        for output in self.outputs:
            size = min(_CANARY, output.size)
            self.memory[output.offset : output.offset + size] = bytes([_SPOILT]) * size

    def judge(self, expectation: Expectation) -> None:
        """Compare the outputs: their start each time, all of them once in a while."""
        self.asked += 1
        if self.asked % _WHOLE_EVERY == 1:
            expectation.check(self._read())
            return
        for output in self.outputs:
            size = min(_CANARY, output.size)
            start = self.memory[output.offset : output.offset + size]
            if start != output.expected.reshape(-1).view(np.uint8)[:size].tobytes():
                expectation.check(self._read())

    def _read(self) -> Outputs:
        found: Outputs = {}
        for output in self.outputs:
            raw = self.memory[output.offset : output.offset + output.size]
            kind = output.expected.dtype
            found[output.name] = np.frombuffer(raw, kind).reshape(output.expected.shape)
        return found

    def unlink(self) -> None:
        """Let the region go."""
        (_ROOT / self.key.removeprefix("/")).unlink(missing_ok=True)


def place(inputs: Mapping[str, tuple[Array, str]], outputs: Outputs) -> Places:
    """Write the inputs into a new region and leave room for outputs like those given."""
    for name, array in outputs.items():
        if array.dtype == object:
            raise Wrong(f"output {name!r} is BYTES: its size in shared memory is not known")
    at = 0
    laid: list[tuple[str, Array, int, int]] = []
    blobs: list[tuple[int, bytes]] = []
    for name, (array, datatype) in inputs.items():
        blob = bytes(encode(array, datatype))
        laid.append((name, array, at, len(blob)))
        blobs.append((at, blob))
        at = -(-(at + len(blob)) // _ALIGNMENT) * _ALIGNMENT
    wanted: list[Output] = []
    for name, array in outputs.items():
        wanted.append(Output(name, at, array.nbytes, np.ascontiguousarray(array)))
        at = -(-(at + array.nbytes) // _ALIGNMENT) * _ALIGNMENT
    key = f"/tuili_bench_{os.getpid()}_{secrets.token_hex(4)}"
    size = max(at, _ALIGNMENT)
    memory = _create(key, size)
    for start, blob in blobs:
        memory[start : start + len(blob)] = blob
    return Places(key.removeprefix("/"), key, size, memory, laid, wanted)


def _create(key: str, size: int) -> mmap.mmap:
    path = _ROOT / key.removeprefix("/")
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)

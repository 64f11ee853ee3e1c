"""Receive buffers for large bodies that return to the pool by themselves.

A tensor of a request is a view of the buffer that the socket wrote into.  It may live as long as a
batch, a cache or a shadow copy needs it, so nobody could say when to give the buffer back.  CPython
can: when the pool holds the only reference to a block, nothing reads it any more.  Warm blocks
matter, since the page faults of a fresh 600 kB allocation cost more than all the rest of a request.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any, Final

import numpy as np

# getrefcount counts the pool's list entry and its own argument.
_IDLE_REFERENCES: Final = 2
_ALIGNMENT: Final = 64
_PAGE: Final = 4096
_APART: Final = 8 << 20


class BufferPool:
    """Blocks of memory for bodies, at most `max_idle_bytes` of them kept warm."""

    def __init__(self, max_idle_bytes: int = 64 << 20) -> None:
        self._blocks: list[np.ndarray[Any, Any]] = []
        self._addresses: list[int] = []
        self._bytes = 0
        self._max_bytes = max_idle_bytes

    def take(self, size: int, lead: int = 0) -> memoryview:
        """A writable view of `size` bytes; its contents are whatever was there before.

        The byte at `lead`, where the first tensor begins, is at a multiple of 64, so that what
        computes with it need not copy it first.
        """
        blocks = self._blocks
        needed = size + _ALIGNMENT
        for index in range(len(blocks)):
            fits = needed <= blocks[index].nbytes <= 2 * needed + _PAGE
            if fits and sys.getrefcount(blocks[index]) == _IDLE_REFERENCES:
                return _place(blocks[index], self._addresses[index], size, lead)
        block = _fresh(-(-needed // _PAGE) * _PAGE)
        address = block.ctypes.data
        self._keep(block, address)
        return _place(block, address, size, lead)

    def _keep(self, block: np.ndarray[Any, Any], address: int) -> None:
        """Remember `block`, and let go of idle blocks of other sizes if that is too much."""
        if self._bytes + block.nbytes > self._max_bytes:
            self._drop_idle()
        if self._bytes + block.nbytes <= self._max_bytes:
            self._blocks.append(block)
            self._addresses.append(address)
            self._bytes += block.nbytes

    def _drop_idle(self) -> None:
        blocks = self._blocks
        for index in reversed(range(len(blocks))):
            if sys.getrefcount(blocks[index]) == _IDLE_REFERENCES:
                self._bytes -= blocks[index].nbytes
                del blocks[index], self._addresses[index]


def _fresh(size: int) -> np.ndarray[Any, Any]:
    """Memory of its own where it is much: a heap keeps the pages of what was in it."""
    if size < _APART:
        return np.empty(size, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def _place(block: np.ndarray[Any, Any], address: int, size: int, lead: int) -> memoryview:
    start = -(address + lead) % _ALIGNMENT
    return memoryview(block)[start : start + size]

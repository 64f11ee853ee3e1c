"""Receive buffers for large bodies that return to the pool by themselves.

A tensor of a request is a view of the buffer that the socket wrote into.  It may live as long as a
batch, a cache or a shadow copy needs it, so nobody could say when to give the buffer back.  CPython
can: when the pool holds the only reference to a block, nothing reads it any more.  Warm blocks
matter, since the page faults of a fresh 600 kB allocation cost more than all the rest of a request.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

# getrefcount counts the pool's list entry and its own argument.
_IDLE_REFERENCES = 2


class BufferPool:
    """Blocks of memory for bodies, at most `max_idle_bytes` of them kept warm."""

    def __init__(self, max_idle_bytes: int = 64 << 20) -> None:
        self._blocks: list[np.ndarray[Any, Any]] = []
        self._bytes = 0
        self._max_bytes = max_idle_bytes

    def take(self, size: int) -> memoryview:
        """A writable view of `size` bytes; its contents are whatever was there before."""
        blocks = self._blocks
        for index in range(len(blocks)):
            fits = size <= blocks[index].nbytes <= 2 * size + 4096
            if fits and sys.getrefcount(blocks[index]) == _IDLE_REFERENCES:
                return memoryview(blocks[index])[:size]
        block = np.empty(-(-size // 4096) * 4096, np.uint8)
        self._keep(block)
        return memoryview(block)[:size]

    def _keep(self, block: np.ndarray[Any, Any]) -> None:
        """Remember `block`, and let go of idle blocks of other sizes if that is too much."""
        if self._bytes + block.nbytes > self._max_bytes:
            self._drop_idle()
        if self._bytes + block.nbytes <= self._max_bytes:
            self._blocks.append(block)
            self._bytes += block.nbytes

    def _drop_idle(self) -> None:
        blocks = self._blocks
        for index in reversed(range(len(blocks))):
            if sys.getrefcount(blocks[index]) == _IDLE_REFERENCES:
                self._bytes -= blocks[index].nbytes
                del blocks[index]

"""Arena: memory for the intermediates of one run at a time."""

from __future__ import annotations

import ctypes
import mmap

_HUGE = 2 << 20
_WORTH_HUGE = 4 << 20
_WORTH_RETURNING = 32 << 20
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)


class Arena:
    """Anonymous memory that grows on demand and returns what a much smaller model leaves unused."""

    __slots__ = ("_memory", "_start", "_used", "address", "capacity")

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._start = 0  # of the arena in the mapping
        self._used = 0  # bytes that have been lent since the last return
        self.address = 0
        self.capacity = 0

    @property
    def held_bytes(self) -> int:
        """How much of it runs have written to and was not returned."""
        return self._used

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes, 64-byte aligned; contents are not kept.

        Raises MemoryError.
        """
        if size > self.capacity:
            self._grow(size)
        elif self._used > _WORTH_RETURNING and self._used > 4 * size:
            self._return_from(size)
        self._used = max(self._used, size)
        return self.address

    def _grow(self, size: int) -> None:
        self._memory = None  # free the old memory before the new is taken
        self.address = self.capacity = self._used = 0
        huge = size >= _WORTH_HUGE
        capacity = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            # Private: a forked child must not write into its parent's arena.
            memory = mmap.mmap(-1, capacity + (_HUGE if huge else 0), flags=_PRIVATE)
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryError(f"{size} bytes for intermediates: {error}") from None
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._start = -base % _HUGE if huge else 0
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._memory = memory
        self.address = base + self._start
        self.capacity = capacity

    def _return_from(self, size: int) -> None:
        """Give the memory beyond `size` back to the system; the addresses stay ours."""
        keep = -(-(self._start + size) // _HUGE) * _HUGE
        end = self._start + self.capacity
        if self._memory is not None and keep < end and hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED, keep, end - keep)
        self._used = size

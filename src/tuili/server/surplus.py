"""Surplus: memory that a flood of large requests left with the process, given back when it is much.

glibc gives back only what is free at the heap's end (`keep_memory`), and any small object that was
made during the flood lies there. What is free in between keeps its pages until it is told.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from pathlib import Path
from typing import Final

_LOG: Final = logging.getLogger("tuili.server")
_LOOK_S: Final = 10.0
_MIB: Final = 1 << 20
_STATM: Final = Path("/proc/self/statm")


class _Heap(ctypes.Structure):
    """glibc's `mallinfo2`: of it the bytes in use and those that are free count here."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


class Surplus:
    """Looks whether more than `most_bytes` of what is resident are free."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._others_bytes = 1 << 62  # what is resident and not the heap's, as far as is known
        try:
            library = ctypes.CDLL(None)
            self._heap, self._trim = library.mallinfo2, library.malloc_trim
        except (OSError, AttributeError):
            self._heap = None  # another C library: it gives memory back in its own way
            return
        self._heap.restype = _Heap

    def look(self) -> int:
        """Give back what is too much; how many bytes that was."""
        if self._heap is None:
            return 0
        heap = self._heap()
        before = resident_bytes()
        unused = max(0, before - heap.uordblks)
        self._others_bytes = min(self._others_bytes, unused)
        if min(unused - self._others_bytes, heap.fordblks) < self._most_bytes:
            return 0
        self._trim(0)
        after = resident_bytes()
        self._others_bytes = max(0, after - heap.uordblks)
        return max(0, before - after)

    async def watch(self) -> None:
        """Look now and then."""
        while True:
            if given := self.look():
                _LOG.info("%d MiB that large requests had left were given back", given // _MIB)
            await asyncio.sleep(_LOOK_S)


def resident_bytes() -> int:
    """The memory of its own that this process holds now; 0 where nobody tells."""
    try:
        _, resident, shared, *_ = map(int, _STATM.read_bytes().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

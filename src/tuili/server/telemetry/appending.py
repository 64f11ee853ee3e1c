"""Appending to files: blocks are taken whole or not at all, and what is lost is told.

A disk that is nearly full takes a part of a block and says so only by a number. What was taken of a
block that did not fit is taken back, so that a reader never meets half a line, and those that have
the file open beside us (other front ends) find its end where a block ends. What was lost is told
when it begins and when it is over, not at every block.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

_log = logging.getLogger("tuili.server")
_NEW: Final = 0o666  # less what the process's mask takes away


class Losses:
    """How much of something was lost, and the telling of it."""

    def __init__(self, where: str, what: str) -> None:
        self._where = where
        self._what = what
        self._count = 0

    def put(self, write: Callable[[], None], items: int) -> bool:
        """Write some items; false, and they are lost, when that fails."""
        try:
            write()
        except OSError as error:
            self.lose(items, error)
            return False
        self.tell()
        return True

    def lose(self, items: int, why: object) -> None:
        """These items are lost."""
        if not self._count:
            _log.error("%s: %s are lost from now on: %s", self._where, self._what, why)
        self._count += items

    def tell(self) -> None:
        """No more are lost for now."""
        if self._count:
            _log.warning("%s: %d %s were lost", self._where, self._count, self._what)
            self._count = 0


def append(path: Path, block: bytes, *, anew: bool = False) -> None:
    """Append a block to a file, or write it `anew`, whole or not at all; OSError where not."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _NEW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe: nothing can be taken back
            _write(descriptor, block)
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # or somebody appends behind our half
        if anew:
            os.ftruncate(descriptor, 0)
        end = os.fstat(descriptor).st_size
        try:
            _write(descriptor, block)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

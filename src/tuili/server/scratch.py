"""Scratch folders: something is made whole in one before it is moved to its place.

A process that is killed leaves its own behind, as large as a model perhaps. Each is locked as long
as its process lives, and whoever makes one removes those beside it that nobody holds. It is for
places that one machine has for itself, such as caches: locks may say nothing of other machines.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch(parent: Path, prefix: str) -> Generator[Path]:
    """A new folder in `parent`, gone in the end unless it was moved."""
    for left in parent.glob(f"{prefix}*"):
        _remove_if_left(left)
    folder, lock = _made(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _made(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system without locks, where nothing is taken for left
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)  # It was taken for one that was left before it was locked.


def _remove_if_left(folder: Path) -> None:
    """Remove a folder that no process holds."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)

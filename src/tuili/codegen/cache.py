"""The cache of compiled objects: entries named by the hash of what made them, safe to share.

Entries appear whole by an atomic rename. A lock file per key makes a second process that wants the
same entry wait for the first instead of doing the work again. Entries unused for long are pruned.
What is read by programs that trust it, such as a linker, has a checksum beside it: a machine that
lost its power leaves empty files, of which a linker makes a library without functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable
from pathlib import Path

from tuili.codegen.whole import put
from tuili.errors import ToolchainError, in_words

LIMIT_BYTES = 4 << 30
PRUNE_EVERY_S = 3600.0
_PRUNED = "pruned"  # an empty file whose date is that of the last time
_SCRATCH = "new-"
_ABANDONED_S = 86400
_CHECKSUM = ".sha256"


def cache_folder() -> Path:
    """`$TUILI_CACHE`, else `tuili` in the user's cache folder."""
    if named := os.environ.get("TUILI_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "tuili"
    except RuntimeError:  # a user without an entry among those of the system
        raise ToolchainError(
            f"no place for the cache: user {os.getuid()} has no home folder; "
            "set TUILI_CACHE to a folder that can be written"
        ) from None


@contextlib.contextmanager
def usable(folder: Path) -> Generator[None]:
    """Errors of the system while the cache in `folder` is read or written, told as its own."""
    try:
        yield
    except OSError as error:
        raise ToolchainError(
            f"the cache of compiled code in {folder} cannot be used: {in_words(error)}; "
            "set TUILI_CACHE to a folder that can be written"
        ) from error


def content_key(parts: Iterable[str]) -> str:
    """A hash of texts; their borders count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(b"%d\n" % len(data))
        digest.update(data)
    return digest.hexdigest()


class ObjectCache:
    """Files by key under one folder; those that end in `checked` have a checksum beside them."""

    def __init__(self, folder: Path, checked: str | None = None) -> None:
        self.folder = folder
        self._checked = checked

    def path(self, key: str, suffix: str) -> Path:
        """Where the entry of a key lives, whether or not it exists."""
        return self.folder / key[:2] / f"{key[2:]}{suffix}"

    def find(self, key: str, suffix: str) -> Path | None:
        """The entry of a key; finding it keeps it from being pruned for a while.

        A damaged one counts as none.
        """
        path = self.path(key, suffix)
        with usable(self.folder):
            try:
                _touch(path)
                if suffix == self._checked:
                    _touch(_checksum_of(path))
                    return path if _is_whole(path) else None
            except FileNotFoundError:
                return None
        return path

    @contextlib.contextmanager
    def making(self, key: str, suffix: str) -> Generator[Path | None]:
        """Hold the right to make an entry.

        Yields a scratch folder in which to make it, to be handed to `keep`; None when it was made
        by another while we waited.
        """
        path = self.path(key, suffix)
        with contextlib.ExitStack() as held:
            with usable(self.folder):
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(path.with_suffix(".lock")))
                there = self.find(key, suffix)
                scratch = tempfile.TemporaryDirectory(dir=path.parent, prefix=_SCRATCH)
                made = held.enter_context(scratch)
            yield None if there else Path(made)

    def keep(self, key: str, suffix: str, made: Path) -> Path:
        """Move a finished file in place."""
        path = self.path(key, suffix)
        with usable(self.folder):
            if suffix == self._checked:
                # First: an entry without it, or with that of another, is made again.
                put(_checksum_of(path), _digest(made).encode())
            made.replace(path)
        return path

    def prune_at_times(
        self, limit_bytes: int = LIMIT_BYTES, every_s: float = PRUNE_EVERY_S
    ) -> None:
        """`prune`, unless somebody did within `every_s`: it looks at every entry.

        A cache that cannot be tidied, as that of another user, is left as it is.
        """
        stamp = self.folder / _PRUNED
        with contextlib.suppress(OSError):
            if stamp.exists() and 0 <= time.time() - stamp.stat().st_mtime < every_s:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            stamp.touch()
            self.prune(limit_bytes)

    def prune(self, limit_bytes: int = LIMIT_BYTES) -> int:
        """Remove the entries unused longest until the rest fits; returns how many went.

        The newest stays, however large.

        Scratch folders that a killed process left behind go too, after a day.
        """
        for path in self.folder.glob(f"??/{_SCRATCH}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)
        entries = [(stat.st_mtime, stat.st_size, path) for path, stat in self._entries()]
        excess = sum(size for _, size, _ in entries) - limit_bytes
        removed = 0
        for _, size, path in sorted(entries, key=lambda entry: entry[0])[:-1]:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
            removed += 1
        return removed

    def _entries(self) -> Generator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.suffix != ".lock":
                    yield path, path.stat()


def _touch(path: Path) -> None:
    """Say that a file was used; raises FileNotFoundError."""
    try:
        os.utime(path)
    except FileNotFoundError:
        raise
    except OSError:  # a cache that one may read and not write, as in a container's image
        path.stat()


def _checksum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_CHECKSUM}")


def _is_whole(path: Path) -> bool:
    return _checksum_of(path).read_bytes() == _digest(path).encode()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a lock file: no other thread or process is inside at the same time."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        # The holder before us removes its file; a lock on a removed file excludes nobody.
        if _same_file(handle, path):
            break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False

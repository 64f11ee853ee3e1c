"""Blobs: files by their SHA-256, fetched in parallel ranges; what was fetched is never lost.

A fetch that breaks off leaves a partial file and a list of its finished parts, by name, size and
mark of the remote file: the next one goes on from there, also in another process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tuili.errors import InvalidArtifact, Unavailable
from tuili.server.remote.store import Listed, Store

PART_BYTES: Final = 8 << 20
_WORKERS: Final = 4
_MD5: Final = re.compile(r"[0-9a-f]{32}")

OnBytes = Callable[[int], None]


class Blobs:
    """The files of a cache folder."""

    def __init__(self, folder: Path, part_bytes: int = PART_BYTES) -> None:
        self._folder = folder
        self._part_bytes = part_bytes
        for name in ("sha256", "partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a file with this checksum is, or would be."""
        return self._folder / "sha256" / sha256[:2] / sha256

    def fetch(
        self,
        store: Store,
        name: str,
        listed: Listed,
        sha256: str = "",
        on_bytes: OnBytes = lambda size: None,
    ) -> str:
        """Bring a remote file here unless it is; its checksum.

        Raises Unavailable when it breaks off or the disk is full, InvalidArtifact when what came
        is not what was promised.
        """
        if sha256 and self.path(sha256).exists():
            return sha256
        key = hashlib.sha256(f"{store.url}\0{name}\0{listed.size}\0{listed.tag}".encode())
        partial = self._folder / "partial" / key.hexdigest()
        try:
            with _locked(partial.with_suffix(".lock")):
                if not (sha256 and self.path(sha256).exists()):
                    in_parts = listed.size > self._part_bytes and not sha256
                    before = store.mark(name) if in_parts else None
                    self._fetch_parts(store, name, listed, partial, on_bytes)
                    if before is not None and (after := store.mark(name)) != before:
                        raise self._changed(store, name, partial, before, after)
                    sha256 = self._keep(store, name, listed, partial, sha256)
        except OSError as error:
            raise self._full(error, store, name, listed) from error
        return sha256

    def _fetch_parts(
        self, store: Store, name: str, listed: Listed, partial: Path, on_bytes: OnBytes
    ) -> None:
        done_file = partial.with_suffix(".parts")
        done = _done(done_file, self._part_bytes) if partial.exists() else set[int]()
        starts = [at for at in range(0, listed.size, self._part_bytes) if at not in done]
        if shutil.disk_usage(self._folder).free < len(starts) * self._part_bytes:
            left = sum(min(self._part_bytes, listed.size - at) for at in starts)
            if shutil.disk_usage(self._folder).free < left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with (
            partial.open("r+b" if done else "wb") as target,
            done_file.open("a" if done else "w") as finished,
        ):
            if not done:
                finished.write(f"{self._part_bytes}\n")
            handle = target.fileno()

            broken = threading.Event()

            def part(start: int) -> int:
                if broken.is_set():
                    return 0  # no part is begun after a failure
                try:
                    end = min(start + self._part_bytes, listed.size)
                    content = _exactly(store, name, listed, start, end)
                    _write_at(handle, content, start)
                    return len(content)
                except BaseException:
                    broken.set()
                    raise

            with ThreadPoolExecutor(_WORKERS) as pool:
                waiting = {pool.submit(part, start): start for start in starts}
                causes: list[BaseException] = []
                for each in as_completed(waiting):
                    # What was under way when a part failed is still counted in.
                    if (error := each.exception()) is not None:
                        causes.append(error)
                    elif each.result():
                        finished.write(f"{waiting[each]}\n")
                        finished.flush()
                        on_bytes(each.result())
                if causes:
                    raise causes[0]

    def _keep(self, store: Store, name: str, listed: Listed, partial: Path, expected: str) -> str:
        with partial.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            wrong = bool(expected) and found != expected
            # The mark of an S3 object that came in one piece is its MD5.
            if not expected and _MD5.fullmatch(listed.tag) and store.url.startswith("s3://"):
                stream.seek(0)
                wrong = hashlib.file_digest(stream, "md5").hexdigest() != listed.tag
            os.fsync(stream.fileno())
        partial.with_suffix(".parts").unlink(missing_ok=True)
        if wrong:
            partial.unlink()
            raise InvalidArtifact(
                f"{store.url}/{name} is damaged: its sha256 is {found}, expected "
                f"{expected or 'MD5 ' + listed.tag}; it is fetched anew the next time"
            )
        target = self.path(found)
        target.parent.mkdir(exist_ok=True)
        partial.chmod(0o444)
        partial.replace(target)
        return found

    def _changed(
        self, store: Store, name: str, partial: Path, before: Listed, after: Listed
    ) -> Unavailable:
        """Parts of two files make none; a checksum, where there is one, would tell as well."""
        partial.unlink(missing_ok=True)
        return Unavailable(
            f"{store.url}/{name} changed while it was fetched ({before.size} bytes, mark "
            f"{before.tag!r}; then {after.size}, {after.tag!r}); it is fetched anew the next time"
        )

    def _full(self, error: OSError, store: Store, name: str, listed: Listed) -> Unavailable:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(self._folder).free
            return Unavailable(
                f"{store.url}/{name}: no room for its {listed.size} bytes in {self._folder}, which "
                f"has {free} free; make room or choose another folder with --cache"
            )
        return Unavailable(f"{store.url}/{name} cannot be kept in {self._folder}: {error}")


def _exactly(store: Store, name: str, listed: Listed, start: int, end: int) -> bytes:
    content = store.read(name, start, end)
    if len(content) == listed.size != end - start:
        content = content[start:end]  # a server that has no ranges sent all of it
    if len(content) != end - start:
        raise Unavailable(
            f"{store.url}/{name} is truncated: {len(content)} bytes came from offset {start}, "
            f"expected {end - start}; what came is kept, the next try goes on from there"
        )
    return content


def _write_at(handle: int, content: bytes, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(handle, memoryview(content)[done:], offset + done)


def _done(path: Path, part_bytes: int) -> set[int]:
    """The offsets of finished parts; none if the parts were of another size."""
    try:
        first, *lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return set()
    return {int(line) for line in lines if line} if first == str(part_bytes) else set()


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Two servers with one cache do not write one partial file."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

"""The two forms of an artifact on disk: a folder, or one stored (uncompressed) zip file.

Either way a member is a range of bytes in some file, so that weights are memory-mapped in place.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tuili.artifact.manifest import ALIGNMENT
from tuili.errors import InvalidArtifact, NotFound

_LOCAL_HEADER = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_PIECE = 1 << 20
_SETTLED_NS = 2_000_000_000
_MAX_CHECKSUMS = 4096

# Several loads of one artifact, as for the instances of a server, read it once.
_checksums: dict[tuple[int, ...], str] = {}


@dataclass(frozen=True, slots=True)
class Member:
    """A range of bytes in a file."""

    path: Path
    offset: int
    size: int

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise InvalidArtifact(f"{self.path} cannot be read: {error.strerror}") from None

    def read(self, limit: int) -> bytes:
        """All bytes; raises InvalidArtifact above `limit`."""
        if self.size > limit:
            raise InvalidArtifact(f"{self.path}: {self.size} bytes, expected at most {limit}")
        with self._open() as stream:
            stream.seek(self.offset)
            return stream.read(self.size)

    def sha256(self) -> str:
        """The checksum of the bytes; remembered as long as the file is the same."""
        stat = self.path.stat()
        changed_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
        key = (stat.st_dev, stat.st_ino, stat.st_size, changed_ns, self.offset, self.size)
        found = _checksums.get(key)
        if found is None:
            found = self._digest()
            # A file that changed a moment ago may change again within one tick of its clock.
            if time.time_ns() - changed_ns > _SETTLED_NS and len(_checksums) < _MAX_CHECKSUMS:
                _checksums[key] = found
        return found

    def _digest(self) -> str:
        """Read piece by piece: what is only checked, not used, takes no memory of the process."""
        digest = hashlib.sha256()
        with self._open() as stream:
            stream.seek(self.offset)
            left = self.size
            while left and (piece := stream.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest()

    def map(self) -> memoryview:
        """The bytes, mapped read-only, shared with other processes that map them."""
        if not self.size:
            return memoryview(b"")
        start = self.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        skip = self.offset - start
        with self._open() as stream:
            mapped = mmap.mmap(
                stream.fileno(), skip + self.size, access=mmap.ACCESS_READ, offset=start
            )
        return memoryview(mapped)[skip:]


class Folder:
    """An artifact that is a folder."""

    is_file = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str) -> Member | None:
        """The member called `name`."""
        path = self.path / name
        return Member(path, 0, path.stat().st_size) if path.is_file() else None


class SingleFile:
    """An artifact that is one zip file."""

    is_file = True

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
                size = path.stat().st_size
                members = [_locate(path, size, stream, info) for info in archive.infolist()]
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            ValueError,
            OverflowError,
            OSError,
        ) as error:
            # All that the module raises for damaged headers.
            raise InvalidArtifact(
                f"{path}: damaged or no artifact ({error}); copy or compile it again"
            ) from None
        self._members = dict(members)

    def find(self, name: str) -> Member | None:
        """The member called `name`."""
        return self._members.get(name)


def _locate(
    path: Path, file_size: int, stream: BinaryIO, info: zipfile.ZipInfo
) -> tuple[str, Member]:
    """Where the bytes of a zip member start: its local header has a length of its own."""
    where = f"{path}: member {info.filename!r}"
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise InvalidArtifact(f"{where} is compressed or encrypted, expected stored as it is")
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES or header[:4] != _LOCAL_HEADER:
        raise InvalidArtifact(f"{where} has no local header; the file is damaged")
    name_bytes, extra_bytes = struct.unpack("<26x2H", header)
    offset = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    if offset + info.file_size > file_size:
        raise InvalidArtifact(f"{where} ends beyond the file's {file_size} bytes; it is truncated")
    if offset % ALIGNMENT:
        raise InvalidArtifact(
            f"{where} starts at byte {offset}, expected a multiple of {ALIGNMENT}"
        )
    return info.filename, Member(path, offset, info.file_size)


def open_storage(path: Path) -> Folder | SingleFile:
    """The storage at `path`; raises NotFound or InvalidArtifact."""
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise NotFound(f"no artifact at {path}")
    return SingleFile(path)

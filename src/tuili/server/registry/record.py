"""Record: what a published version says about itself; `version.json` in its folder.

Design: the record is written once, last, and lists every file of the version with its checksum.
So it is also the mark of completeness: a folder whose record names files that are not there yet
is a copy under way. A folder without a record is a plain one of Triton's layout.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tuili.artifact.manifest import TensorEntry
from tuili.errors import InvalidArtifact

RECORD: Final = "version.json"
SEAL: Final = "version.json.sig"
_MAX_BYTES: Final = 64 << 20

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Bytes = Annotated[int, Meta(ge=0, le=1 << 48)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the record; unknown keys are refused, so that a slip is not silently lost."""


class FileEntry(_Entry, frozen=True, kw_only=True):
    """One file of the version."""

    bytes: _Bytes
    sha256: Sha256


class Provenance(_Entry, frozen=True, kw_only=True, omit_defaults=True):
    """Where a version comes from."""

    source: str
    source_sha256: Sha256
    options: dict[str, str] = {}
    """Of the compiler; empty when the source is served as it is."""
    calibration: str = ""
    calibration_sha256: str = ""
    producer: str
    at: str
    """When, in UTC, as ISO 8601."""
    user: str


class Record(_Entry, frozen=True, kw_only=True, omit_defaults=True):
    """All of `version.json`."""

    format: Literal["tuili-version"] = "tuili-version"
    schema: Annotated[int, Meta(ge=1, le=1)]
    model: str
    version: Annotated[int, Meta(ge=1)]
    digest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
    """Of the files: the same content has the same digest, whatever it is called."""
    inputs: list[TensorEntry] | None = None
    """None where the form of the model does not tell, as with Python."""
    outputs: list[TensorEntry] | None = None
    follows: Annotated[int, Meta(ge=0)] = 0
    """The version that was the newest when this one was made."""
    signature_changed: bool = False
    """That inputs and outputs differ from those of `follows` was allowed."""
    metrics: dict[str, float] = {}
    parameters: dict[str, str] = {}
    notes: str = ""
    provenance: Provenance
    files: dict[str, FileEntry]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.files.values())


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode: Final = msgspec.json.Decoder(Record).decode


def encode(record: Record) -> bytes:
    """The record as indented JSON, the same bytes every time."""
    text = msgspec.json.encode(record, order="deterministic")
    return msgspec.json.format(text, indent=2) + b"\n"


def decode(text: bytes, where: str) -> Record:
    """The record in `text`; raises InvalidArtifact."""
    try:
        record = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArtifact(f"{where} is no record of a version: {error}") from error
    for name in record.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
            raise InvalidArtifact(f"{where}: file {name!r} would lie outside the version's folder")
    return record


def read(version: Path) -> Record | None:
    """The record of a version's folder, None if it has none; raises InvalidArtifact."""
    path = version / RECORD
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidArtifact(f"{path} has more than {_MAX_BYTES} bytes")
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArtifact(f"{path} cannot be read: {error.strerror}") from error
    return decode(text, str(path))


def files_of(version: Path) -> dict[str, Path]:
    """The files of a version's folder by their names in the record, the record itself left out."""
    found: dict[str, Path] = {}
    for parent, folders, files in os.walk(version):
        folders[:] = sorted(each for each in folders if each != "__pycache__")
        for name in sorted(files):
            path = Path(parent, name)
            found[path.relative_to(version).as_posix()] = path
    found.pop(RECORD, None)
    found.pop(SEAL, None)
    return found


def entries_of(version: Path) -> dict[str, FileEntry]:
    """Size and checksum of every file."""
    return {name: entry_of(path) for name, path in files_of(version).items()}


def entry_of(path: Path) -> FileEntry:
    """Size and checksum of one file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(bytes=stream.tell(), sha256=digest)


def digest_of(files: Mapping[str, FileEntry]) -> str:
    """The digest of a version with these files."""
    lines = "".join(f"{entry.sha256} {name}\n" for name, entry in sorted(files.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def source_digest(path: Path) -> str:
    """The checksum of a source: that of the file, or over the files of a folder."""
    if path.is_file():
        return entry_of(path).sha256
    return digest_of(entries_of(path)).removeprefix("sha256:")


def changes(old: Record, new: Record) -> list[str]:
    """How inputs and outputs differ, in words; empty when clients see no difference."""
    if old.inputs is None or new.inputs is None:
        return []
    return [
        *_changed("input", old.inputs, new.inputs),
        *_changed("output", old.outputs or [], new.outputs or []),
    ]


def _changed(what: str, old: Sequence[TensorEntry], new: Sequence[TensorEntry]) -> list[str]:
    before = {entry.name: spec_text(entry) for entry in old}
    after = {entry.name: spec_text(entry) for entry in new}
    found = [f"{what} {name!r} {before[name]} is gone" for name in before if name not in after]
    found += [f"{what} {name!r} {after[name]} is new" for name in after if name not in before]
    kept = [name for name in before if name in after]
    found += [
        f"{what} {name!r} was {before[name]}, is {after[name]}"
        for name in kept
        if before[name] != after[name]
    ]
    return found


def spec_text(entry: TensorEntry) -> str:
    """`float32[?,3]`: the names of open dims are no promise to clients."""
    dims = ",".join(str(dim) if isinstance(dim, int) else "?" for dim in entry.shape)
    return f"{entry.dtype}[{dims}]"

"""Checks a published version: whole, unchanged, in its place, and what its clients expect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuili.errors import InvalidArtifact
from tuili.server.registry import record as records
from tuili.server.registry.record import RECORD, Record
from tuili.server.registry.signing import check_available, require_signature


def is_whole(version: Path) -> bool:
    """Whether all files of a version are there with their sizes; true for one without a record.

    Cheap: it reads no file but the record. `check` reads them all.
    """
    try:
        record = records.read(version)
    except InvalidArtifact:
        # Half a record, perhaps; if it stays like that, loading tells what is wrong with it.
        return True
    return record is None or not _missing(version, record)


def check(
    folder: Path, version: int, trusted: Sequence[Path] = (), model: str | None = None
) -> Record | None:
    """Raise InvalidArtifact unless a version is what its record says; the record, if it has one.

    With keys in `trusted`, it must have a record, signed by one of them.
    """
    place = folder / str(version)
    if trusted:
        check_available()
        require_signature(place, trusted)
    record = records.read(place)
    if record is None:
        return None
    model = folder.name if model is None else model
    if (record.model, record.version) != (model, version):
        raise InvalidArtifact(
            f"{place} is version {record.version} of model {record.model!r} by its record, but "
            f"lies where version {version} of {model!r} should be; publish it instead of copying it"
        )
    _check_files(place, record)
    _check_signature(folder, record)
    return record


def _missing(version: Path, record: Record) -> list[str]:
    found: list[str] = []
    for name, entry in record.files.items():
        try:
            size = (version / name).stat().st_size
        except OSError:
            size = -1
        if size != entry.bytes:
            found.append(name)
    return found


def _check_files(version: Path, record: Record) -> None:
    there = records.files_of(version)
    if extra := sorted(set(there) - set(record.files)):
        raise InvalidArtifact(
            f"{version} holds {', '.join(extra)}, which its record does not list; a published "
            "version cannot be changed: publish another one"
        )
    for name, expected in record.files.items():
        if name not in there:
            raise InvalidArtifact(f"{version / name} is missing; copy the version whole")
        found = records.entry_of(there[name])
        if found != expected:
            raise InvalidArtifact(
                f"{version / name} is damaged: {found.bytes} bytes with sha256 {found.sha256}, the "
                f"record says {expected.bytes} bytes with {expected.sha256}; copy it again"
            )
    if (digest := records.digest_of(record.files)) != record.digest:
        raise InvalidArtifact(
            f"{version / RECORD} is damaged: its files have digest {digest}, it says "
            f"{record.digest}"
        )


def _check_signature(folder: Path, record: Record) -> None:
    """A version that came by copying may differ from its predecessor where publishing refuses."""
    if record.signature_changed or not record.follows:
        return
    before = records.read(folder / str(record.follows))
    if before is not None and (found := records.changes(before, record)):
        raise InvalidArtifact(
            f"version {record.version} of {record.model!r} has another signature than version "
            f"{record.follows}: {'; '.join(found)}. Publish it with --allow-signature-change if "
            "its clients know"
        )

"""Publishing: a model becomes the next version in a repository, whole or not at all.

The version is put together in a hidden folder of the repository, written through to the disk, and
renamed to its number. A rename onto a version that exists fails, so two publishers cannot take one
number, and what is published never changes.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from tuili.artifact.manifest import TensorEntry
from tuili.errors import AlreadyExists, InvalidArgument, InvalidModel, NotFound
from tuili.server.registry import ledger, record, signing
from tuili.server.registry.ledger import Event
from tuili.server.registry.record import RECORD, SEAL, Provenance, Record
from tuili.server.repository.layout import check_name, version_folders

_STAGING: Final = ".publishing-"
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be published: `files` by their names in the version's folder, and facts."""

    files: Mapping[str, Path]
    provenance: Provenance
    inputs: Sequence[TensorEntry] | None = None
    outputs: Sequence[TensorEntry] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: str = ""


def publish(
    repository: Path,
    model: str,
    draft: Draft,
    *,
    version: int | None = None,
    allow_signature_change: bool = False,
    key: Path | None = None,
) -> Record:
    """Publish a version, the next one unless `version` says which; its record.

    Raises AlreadyExists for a version that is there, InvalidModel for another signature than that
    of the newest version unless that is allowed.
    """
    check_name(model)
    if not repository.is_dir():
        raise NotFound(f"no repository folder {str(repository)!r}; make it first")
    if key is not None:
        signing.check_available()
    folder = repository / model
    staging = Path(tempfile.mkdtemp(dir=repository, prefix=_STAGING))
    try:
        content = staging / "version"
        copy(draft.files, content)
        made = _placed(folder, draft, content, version, allow_signature_change, key)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _tell(folder, made)
    return made


def _placed(
    folder: Path,
    draft: Draft,
    content: Path,
    version: int | None,
    allow_signature_change: bool,
    key: Path | None,
) -> Record:
    """Give the files a record and their place; who loses the race for a number takes the next."""
    while True:
        made = drawn_up(folder, draft, content, version, allow_signature_change)
        _write_record(content, made, key)
        if _move(content, folder, made.version):
            return made
        if version is not None:
            raise already_there(folder.name, version, folder.parent)


def drawn_up(
    folder: Path, draft: Draft, content: Path, version: int | None, allow_signature_change: bool
) -> Record:
    """The record of the files in `content` as a version of the model in `folder`."""
    made = _record(folder, folder.name, draft, content, version)
    found = _changes(folder, made)
    if found and not allow_signature_change:
        raise InvalidModel(
            f"the new version of {made.model!r} has another signature than version "
            f"{made.follows}: {'; '.join(found)}. Give --allow-signature-change if its clients know"
        )
    return msgspec.structs.replace(made, signature_changed=bool(found))


def _tell(folder: Path, made: Record) -> None:
    """An entry of the model's ledger."""
    by = made.provenance
    with ledger.locked(folder):
        ledger.append(folder, Event(by.at, by.user, "publish", made.version, why=made.notes))


def copy(files: Mapping[str, Path], content: Path) -> None:
    """Copies of files and folders, on the disk."""
    content.mkdir()
    for name, source in files.items():
        if name in (RECORD, SEAL):
            raise InvalidArgument(f"{source}: the name {name} is kept for the record of a version")
        target = content / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    for path in record.files_of(content).values():
        _sync(path)


def _record(folder: Path, model: str, draft: Draft, content: Path, version: int | None) -> Record:
    there = version_folders(folder) if folder.is_dir() else []
    if version is not None and version in there:
        raise already_there(folder.name, version, folder.parent)
    files = record.entries_of(content)
    if not files:
        raise InvalidArgument("there is nothing to publish: no file")
    return Record(
        schema=1,
        model=model,
        version=version if version is not None else max(there, default=0) + 1,
        digest=record.digest_of(files),
        inputs=None if draft.inputs is None else list(draft.inputs),
        outputs=None if draft.outputs is None else list(draft.outputs),
        follows=max(there, default=0),
        metrics=dict(draft.metrics),
        parameters=dict(draft.parameters),
        notes=draft.notes,
        provenance=draft.provenance,
        files=files,
    )


def _changes(folder: Path, made: Record) -> list[str]:
    before = record.read(folder / str(made.follows)) if made.follows else None
    return [] if before is None else record.changes(before, made)


def _write_record(content: Path, made: Record, key: Path | None) -> None:
    text = record.encode(made)
    (content / RECORD).write_bytes(text)
    _sync(content / RECORD)
    if key is not None:
        (content / SEAL).write_bytes(signing.sign(text, key))
        _sync(content / SEAL)
    _sync(content)


def _move(content: Path, folder: Path, version: int) -> bool:
    """Make the version appear; false when another publisher took the number.

    A new model appears together with its first version: it is never seen without one.
    """
    if not folder.exists():
        whole = content.parent / "model"
        whole.mkdir(exist_ok=True)
        first = whole / str(version)
        content.rename(first)
        if _renamed(whole, folder):
            return True
        first.rename(content)
    return _renamed(content, folder / str(version))


def _renamed(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    _sync(target.parent)
    return True


def already_there(model: str, version: int, where: object) -> AlreadyExists:
    """The error of a number that is taken."""
    return AlreadyExists(
        f"version {version} of {model!r} exists in {where}, and a published version "
        "cannot be changed; leave --version out to publish the next one"
    )


def _sync(path: Path) -> None:
    """Write a file or the names in a folder through to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

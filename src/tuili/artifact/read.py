"""Opens an artifact: checks what it says, what it holds and whether this machine can run it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tuili.artifact.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    CodeEntry,
    Manifest,
    decode_manifest,
    specs_of,
)
from tuili.artifact.storage import Folder, Member, SingleFile, open_storage
from tuili.errors import InvalidArtifact, NotFound
from tuili.tensors import TensorSpec


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled model on disk, its manifest checked; `verify` checks its members."""

    path: Path
    manifest: Manifest
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    storage: Folder | SingleFile

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.manifest.name

    @property
    def size_bytes(self) -> int:
        """Bytes of code and weights."""
        members = [self.weights, *(self.member(entry.file) for entry in self.manifest.code)]
        return sum(member.size for member in members)

    @property
    def weights(self) -> Member:
        """The packed weights; their size has been compared with the manifest's."""
        entry = self.manifest.weights
        member = self.member(entry.file)
        if member.size != entry.bytes:
            raise InvalidArtifact(
                f"{self.path}: {entry.file} has {member.size} bytes, the manifest says "
                f"{entry.bytes}; it is truncated or of another model: copy or compile it again"
            )
        return member

    def member(self, name: str) -> Member:
        """The member called `name`; raises InvalidArtifact."""
        found = self.storage.find(name)
        if found is None:
            raise InvalidArtifact(
                f"{self.path}: {name} is missing; copy the artifact whole or compile it again"
            )
        return found

    def choose_code(self, features: Iterable[str], system: str, machine: str) -> CodeEntry:
        """The code for a host; of several that run, the one that uses most of its CPU."""
        features = frozenset(features)
        fits = [
            entry
            for entry in self.manifest.code
            if (entry.os, entry.machine) == (system, machine)
            and features.issuperset(entry.requires)
        ]
        if fits:
            return max(fits, key=lambda entry: len(entry.requires))
        reasons = [_misfit(entry, features, system, machine) for entry in self.manifest.code]
        raise InvalidArtifact(
            f"{self.path}: no code for this host ({system}, {machine}): {'; '.join(reasons)}. "
            "Compile the model for this host's target"
        )

    def verify_code(self, entry: CodeEntry) -> Member:
        """The member of some code; raises InvalidArtifact unless its checksum is right."""
        return self._verified(self.member(entry.file), entry.file, entry.sha256)

    def verify_weights(self) -> Member:
        """The member of the weights; raises InvalidArtifact unless size and checksum are right."""
        entry = self.manifest.weights
        return self._verified(self.weights, entry.file, entry.sha256)

    def verify_file(self, name: str) -> Member:
        """A further member; raises InvalidArtifact unless it has its checksum."""
        expected = self.manifest.files.get(name)
        if expected is None:
            raise InvalidArtifact(
                f"{self.path}: {name} is not in `files` of the manifest; compile the model again"
            )
        return self._verified(self.member(name), name, expected)

    def verify(self) -> None:
        """Raise InvalidArtifact unless every member is there and has its checksum."""
        for name in self.manifest.files:
            self.verify_file(name)
        for entry in self.manifest.code:
            self.verify_code(entry)
        self.verify_weights()

    def _verified(self, member: Member, name: str, expected: str) -> Member:
        found = member.sha256()
        if found != expected:
            raise InvalidArtifact(
                f"{self.path}: {name} is damaged: sha256 is {found}, the manifest says {expected}; "
                "copy or compile the artifact again"
            )
        return member


def open_artifact(path: str | Path) -> Artifact:
    """The artifact at `path`, folder or file; raises NotFound or InvalidArtifact."""
    path = Path(path)
    storage = open_storage(path)
    member = storage.find(MANIFEST_FILE)
    if member is None:
        raise InvalidArtifact(
            f"{path}: no {MANIFEST_FILE} in it; expected what `tuili compile` writes"
        )
    where = f"{path}: {MANIFEST_FILE}"
    manifest = decode_manifest(member.read(MAX_MANIFEST_BYTES), where)
    inputs = specs_of(manifest.inputs, where)
    outputs = specs_of(manifest.outputs, where)
    return Artifact(path, manifest, inputs, outputs, storage)


class Pin:
    """Tells whether the artifact at a path was replaced since the pin was set.

    Writers replace an artifact in one step: what was opened between the setting of a pin and a
    `holds()` belongs together. The pin keeps the file open, so that its number is not used again.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"no artifact at {path}") from None
        except OSError as error:
            raise InvalidArtifact(f"{path} cannot be read: {error.strerror}") from None

    def holds(self) -> bool:
        """Whether the path still names what it named when the pin was set."""
        try:
            return os.path.samestat(os.fstat(self._handle), Path(self._path).stat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._handle)


def is_artifact(path: str | Path) -> bool:
    """Whether `path` looks like an artifact rather than a model file or folder."""
    path = Path(path)
    if path.is_dir():
        return (path / MANIFEST_FILE).is_file()
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PK\x03\x04" and MANIFEST_FILE.encode() in stream.read(256)
    except OSError:
        return False


def _misfit(entry: CodeEntry, features: frozenset[str], system: str, machine: str) -> str:
    if (entry.os, entry.machine) != (system, machine):
        return f"{entry.file} is for {entry.os}, {entry.machine}"
    missing = ", ".join(sorted(set(entry.requires) - features))
    return f"{entry.file} ({entry.target}) needs CPU features {missing}, which this CPU lacks"

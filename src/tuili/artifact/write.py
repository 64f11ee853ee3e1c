"""Writes an artifact: whole or not at all, and the same bytes for the same contents."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tuili.artifact.manifest import (
    ABI,
    ALIGNMENT,
    FORMAT,
    MANIFEST_FILE,
    VERSION,
    ArenaEntry,
    CodeEntry,
    Manifest,
    WeightsEntry,
    decode_manifest,
    encode_manifest,
    tensor_entries,
)
from tuili.artifact.read import Artifact, is_artifact, open_artifact
from tuili.errors import AlreadyExists, InvalidArgument, in_words
from tuili.tensors import Array, TensorSpec

WEIGHTS_FILE = "weights.bin"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
_PADDING_ID = 0x7A74  # of the zip extra field that aligns a member; readers skip unknown fields
_PUT_ATTEMPTS = 20
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@dataclass(frozen=True, slots=True)
class CodeFile:
    """A native library to put into an artifact."""

    library: Path
    target: str
    requires: tuple[str, ...]
    machine: str
    os: str = "linux"


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that an artifact is made of."""

    name: str
    producer: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    symbols: Sequence[str]
    code: Sequence[CodeFile]
    weights: Sequence[tuple[int, Array]] = ()
    """Each array with its offset in the file, a multiple of ALIGNMENT, rising."""
    arena_bytes: int | None = None
    arena_lower_bound: int | None = None
    ir_version: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    host_steps: Sequence[str] = ()
    extra: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Further files for readers, such as `model.c`."""


def write_artifact(
    contents: Contents, output: str | Path, *, single_file: bool = False
) -> Artifact:
    """Write an artifact to `output`, replacing an older artifact there.

    Raises AlreadyExists for what is there and no artifact, InvalidArgument where none can be.
    """
    output = Path(output)
    refuse_foreign(output)
    try:
        return _write(contents, output, single_file=single_file)
    except OSError as error:
        raise InvalidArgument(
            f"the artifact {str(output)!r} cannot be written: {in_words(error)}"
        ) from error


def _write(contents: Contents, output: Path, *, single_file: bool) -> Artifact:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        folder = Path(scratch) / "artifact"
        folder.mkdir()
        names = _write_folder(contents, folder)
        if single_file:
            packed = Path(scratch) / "artifact.zip"
            pack(folder, names, packed)
            folder = packed
        _put(folder, output, Path(scratch) / "old")
    return open_artifact(output)


def refuse_foreign(output: Path) -> None:
    """Never replace what is no artifact, be it the model itself: the user meant another place."""
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_FILE).exists():
        raise AlreadyExists(
            f"{output} is a folder, and no artifact: it has no {MANIFEST_FILE}. "
            "Name another output or remove it"
        )
    if output.exists() and not output.is_dir() and not output.is_file():
        # Who may write everywhere would put a folder in the place of /dev/null.
        raise InvalidArgument(
            f"{output} is a device, pipe or socket, and an artifact is a folder or a file. "
            "Name another output"
        )
    if output.is_file() and output.stat().st_size and not is_artifact(output):
        raise AlreadyExists(
            f"{output} is a file, and no artifact. Name another output or remove it"
        )


def _put(made: Path, output: Path, old: Path) -> None:
    """Put `made` in the place of `output`; of writers at the same time one comes last and stays."""
    for attempt in range(_PUT_ATTEMPTS):
        try:
            made.replace(output)
        except OSError:
            # A folder with contents is not replaced by a rename, nor a file by a folder.
            if attempt + 1 == _PUT_ATTEMPTS:
                raise
            if _exchange(made, output):
                return
            _move_away(output, old / str(attempt))
        else:
            return


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step: readers find one or the other. False where not possible."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError, OSError):
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _move_away(path: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    try:
        path.rename(to)
    except FileNotFoundError:
        return  # another writer has moved it


def _write_folder(contents: Contents, folder: Path) -> list[str]:
    """Write all members; returns their names in order."""
    code: list[CodeEntry] = []
    for source in contents.code:
        name = f"model.{source.target}.so"
        shutil.copyfile(source.library, folder / name)
        code.append(_code_entry(source, name, folder))
    weights = _write_weights(contents.weights, folder)
    manifest = _manifest(contents, code, weights)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    decode_manifest((folder / MANIFEST_FILE).read_bytes(), contents.name)  # obeys its own rules
    for name, data in contents.extra.items():
        (folder / name).write_bytes(data)
    return [MANIFEST_FILE, *(entry.file for entry in code), WEIGHTS_FILE, *contents.extra]


def _code_entry(source: CodeFile, name: str, folder: Path) -> CodeEntry:
    return CodeEntry(
        file=name,
        target=source.target,
        requires=list(source.requires),
        os=source.os,
        machine=source.machine,
        sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
    )


def _manifest(contents: Contents, code: list[CodeEntry], weights: WeightsEntry) -> Manifest:
    return Manifest(
        format=FORMAT,
        version=VERSION,
        abi=ABI,
        ir_version=contents.ir_version,
        producer=contents.producer,
        name=contents.name,
        host_steps=list(contents.host_steps),
        files={name: hashlib.sha256(data).hexdigest() for name, data in contents.extra.items()},
        inputs=tensor_entries(contents.inputs),
        outputs=tensor_entries(contents.outputs),
        symbols=list(contents.symbols),
        code=code,
        weights=weights,
        arena=ArenaEntry(bytes=contents.arena_bytes, lower_bound=contents.arena_lower_bound),
        metadata=dict(contents.metadata),
        options=dict(contents.options),
    )


def _write_weights(weights: Sequence[tuple[int, Array]], folder: Path) -> WeightsEntry:
    digest = hashlib.sha256()
    position = 0
    with (folder / WEIGHTS_FILE).open("wb") as stream:
        for offset, array in weights:
            assert offset % ALIGNMENT == 0, "weights are misaligned"
            assert offset >= position, "weights overlap"
            data = (
                np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b""
            )
            for part in (bytes(offset - position), data):
                digest.update(part)
                stream.write(part)
            position = offset + array.nbytes
    return WeightsEntry(file=WEIGHTS_FILE, bytes=position, sha256=digest.hexdigest())


def pack(folder: Path, names: Sequence[str], output: Path) -> None:
    """Store members in one zip file, each aligned, without anything that depends on the day."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in names:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            info.file_size = (folder / name).stat().st_size
            zip64 = info.file_size >= zipfile.ZIP64_LIMIT
            start = archive.fp.tell() if archive.fp else 0
            info.extra = _padding(start + 30 + len(name.encode()) + (20 if zip64 else 0))
            with (
                (folder / name).open("rb") as source,
                archive.open(info, "w", force_zip64=zip64) as to,
            ):
                shutil.copyfileobj(source, to, 1 << 20)


def _padding(position: int) -> bytes:
    """An extra field after which a member that would start at `position` is aligned."""
    fill = -(position + 4) % ALIGNMENT
    return _PADDING_ID.to_bytes(2, "little") + fill.to_bytes(2, "little") + bytes(fill)

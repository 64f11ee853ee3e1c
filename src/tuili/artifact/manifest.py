"""The manifest: what an artifact says about itself, and the rules that it must obey.

Design: the manifest is data from strangers. Its types bound every number and every text, and
`check_manifest` adds what types cannot say, so that code behind it need not look again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tuili.errors import InvalidArtifact, TuiliError, nearest
from tuili.tensors import DType, Shape, TensorSpec, parse_shape, symbols_of

FORMAT = "tuili-artifact"
VERSION = 1
ABI = 2
MANIFEST_FILE = "manifest.json"
ALIGNMENT = 64
MAX_MANIFEST_BYTES = 64 << 20

_Name = Annotated[str, Meta(min_length=1, max_length=4096)]
_FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}$")]
_Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Bytes = Annotated[int, Meta(ge=0, le=1 << 48)]
LARGEST_DIM = 1 << 48
_DimNumber = Annotated[int, Meta(ge=0, le=LARGEST_DIM)]
# What is cut and joined again and again has long sizes.
_DimText = Annotated[str, Meta(min_length=1, max_length=1 << 16)]
_Symbol = Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,199}$")]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the manifest; unknown keys are refused, so that a slip is not silently lost."""


class TensorEntry(_Entry, frozen=True, kw_only=True, omit_defaults=True):
    """An input or output."""

    name: _Name
    dtype: str
    shape: Annotated[list[_DimNumber | _DimText], Meta(max_length=64)]
    type: Annotated[str, Meta(max_length=4096)] = ""
    """Of what is no tensor of known rank: a sequence, an optional, a map."""


class CodeEntry(_Entry, frozen=True, kw_only=True):
    """A native library for one target."""

    file: _FileName
    target: _Name
    requires: Annotated[list[_Name], Meta(max_length=256)]
    """CPU features, as Linux spells them."""
    os: _Name
    machine: _Name
    sha256: _Sha256


class WeightsEntry(_Entry, frozen=True, kw_only=True):
    """The file of packed weights."""

    file: _FileName
    bytes: _Bytes
    sha256: _Sha256


class ArenaEntry(_Entry, frozen=True, kw_only=True):
    """Memory for intermediates; null when it depends on run-time dims."""

    bytes: _Bytes | None
    lower_bound: _Bytes | None


class Manifest(_Entry, frozen=True, kw_only=True, omit_defaults=True):
    """All of `manifest.json`."""

    format: Literal["tuili-artifact"]
    version: Annotated[int, Meta(ge=1)]
    abi: Annotated[int, Meta(ge=1)]
    ir_version: Annotated[int, Meta(ge=0)]
    producer: str
    name: _Name
    inputs: list[TensorEntry]
    outputs: Annotated[list[TensorEntry], Meta(min_length=1)]
    symbols: list[_Symbol]
    """The run-time dims, in the order of the native call."""
    code: Annotated[list[CodeEntry], Meta(min_length=1)]
    weights: WeightsEntry
    arena: ArenaEntry
    metadata: dict[str, str]
    options: dict[str, str]
    files: dict[_FileName, _Sha256] = {}
    """The checksums of further members, such as `model.c`."""
    host_steps: list[str] = []
    """Nodes that the host runs by their NumPy meaning; `hostN.json` describes number N."""


class _Head(msgspec.Struct):
    """What must be understood before the rest may be read."""

    format: str = ""
    version: int = 0
    abi: int = 0


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode: Final = msgspec.json.Decoder(Manifest).decode


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON, the same bytes every time."""
    return (
        msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"
    )


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in `data`; raises InvalidArtifact that starts with `where`."""
    try:
        head = _decode_head(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArtifact(f"{where}: not a manifest: {error}") from None
    _check_head(head, where)
    try:
        manifest = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArtifact(f"{where}: {_explain(str(error))}") from None
    check_manifest(manifest, where)
    return manifest


def _check_head(head: _Head, where: str) -> None:
    if head.format != FORMAT:
        raise InvalidArtifact(f"{where}: format is {head.format!r}, expected {FORMAT!r}")
    for what, found, known in (("version", head.version, VERSION), ("abi", head.abi, ABI)):
        if found != known:
            todo = "upgrade tuili" if found > known else "compile the model again"
            raise InvalidArtifact(
                f"{where}: {what} is {found}, this tuili reads {what} {known}; {todo}"
            )


def _explain(message: str) -> str:
    """The decoder's message, with the nearest key when a key is unknown."""
    found = re.search(r"unknown field `([^`]*)`", message)
    if not found:
        return message
    entries = (Manifest, TensorEntry, CodeEntry, WeightsEntry, ArenaEntry)
    known = [name for entry in entries for name in entry.__struct_fields__]
    return message + "." + nearest(found[1], known)


# -- rules -------------------------------------------------------------------------------------


def check_manifest(manifest: Manifest, where: str) -> None:
    """Raise InvalidArtifact for what the types of the manifest cannot forbid."""
    inputs = specs_of(manifest.inputs, f"{where}: inputs")
    outputs = specs_of(manifest.outputs, f"{where}: outputs")
    _check_unique((spec.name for spec in inputs), f"{where}: inputs", "name")
    _check_unique((spec.name for spec in outputs), f"{where}: outputs", "name")
    _check_unique(manifest.symbols, f"{where}: symbols", "symbol")
    _check_unique((entry.target for entry in manifest.code), f"{where}: code", "target")
    files = [MANIFEST_FILE, manifest.weights.file, *(entry.file for entry in manifest.code)]
    files += manifest.files
    _check_unique(files, where, "file")
    for spec in (*inputs, *outputs):
        if unknown := _symbols(spec.shape) - set(manifest.symbols):
            raise InvalidArtifact(
                f"{where}: {spec} uses {sorted(unknown)}, which `symbols` does not list"
            )


def _symbols(shape: Shape) -> set[str]:
    return {name for dim in shape for name in symbols_of(dim)}


def _check_unique(names: Iterable[str], where: str, what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidArtifact(f"{where}: {what} {twice[0]!r} appears more than once")


def specs_of(entries: Sequence[TensorEntry], where: str) -> tuple[TensorSpec, ...]:
    """The specs of inputs or outputs; raises InvalidArtifact for bad types and dims."""
    specs: list[TensorSpec] = []
    for entry in entries:
        try:
            dtype, shape = DType.parse(entry.dtype), parse_shape(entry.shape)
            spec = TensorSpec(entry.name, dtype, shape, entry.type)
        except (TuiliError, ArithmeticError) as error:
            raise InvalidArtifact(f"{where}: tensor {entry.name!r}: {error}") from None
        specs.append(spec)
    return tuple(specs)


def tensor_entries(specs: Iterable[TensorSpec]) -> list[TensorEntry]:
    """Specs in the form of the manifest."""
    return [
        TensorEntry(
            name=spec.name,
            dtype=spec.dtype.value,
            shape=[dim if isinstance(dim, int) else str(dim) for dim in spec.shape],
            type=spec.type,
        )
        for spec in specs
    ]

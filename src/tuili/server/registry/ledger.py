"""Ledger: what people decided about the versions of one model; `registry.json` in its folder.

Versions are immutable; tags move, and a version can be withdrawn. Both only ever change by an
entry, so the file is also the history. A store of objects can create a file but not lock one, so
there each decision is a file of its own, `registry/000001.json`, and who loses the race for a
number looks again.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from tuili.errors import InvalidModel, Unavailable

LEDGER: Final = "registry.json"
ENTRIES: Final = "registry/"
_LOCK: Final = ".registry.lock"

Action = Literal["publish", "tag", "untag", "withdraw", "restore"]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One decision."""

    at: str
    user: str
    action: Action
    version: int
    tag: str = ""
    why: str = ""


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `registry.json`."""

    format: Literal["tuili-registry"] = "tuili-registry"
    events: tuple[Event, ...] = ()

    @property
    def tags(self) -> dict[str, int]:
        """Where each tag points."""
        found: dict[str, int] = {}
        for event in self.events:
            if event.action == "tag":
                found[event.tag] = event.version
            elif event.action == "untag":
                found.pop(event.tag, None)
        return found

    @property
    def withdrawn(self) -> frozenset[int]:
        """The versions that are not to be served."""
        found: set[int] = set()
        for event in self.events:
            if event.action == "withdraw":
                found.add(event.version)
            elif event.action == "restore":
                found.discard(event.version)
        return frozenset(found)


# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode: Final = msgspec.json.Decoder(Ledger).decode


def read(folder: Path) -> Ledger:
    """The ledger of a model's folder; an empty one if there is none; raises InvalidModel."""
    path = folder / LEDGER
    try:
        return decode(path.read_bytes(), str(path))
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error}") from error


def decode(text: bytes, where: str) -> Ledger:
    """The ledger in `text`; raises InvalidModel."""
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{where} cannot be read: {error}") from error


def joined(parts: Iterable[Ledger]) -> Ledger:
    """One ledger with the entries of all, in order."""
    return Ledger(events=tuple(event for part in parts for event in part.events))


def encode(ledger: Ledger) -> bytes:
    """The ledger as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(ledger), indent=2) + b"\n"


def append(folder: Path, *events: Event) -> Ledger:
    """Add entries; the caller holds `locked(folder)` if what it adds depends on what it read."""
    found = read(folder)
    ledger = Ledger(events=found.events + events)
    replace(folder / LEDGER, encode(ledger))
    return ledger


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Nobody else decides about this model meanwhile; the lock goes with the process."""
    try:
        with (folder / _LOCK).open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise Unavailable(f"{folder} cannot be written: {error}") from error


def replace(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

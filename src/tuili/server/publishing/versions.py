"""What is asked and decided about published versions: history, names, tags, withdrawal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuili.errors import InvalidArgument, InvalidArtifact, InvalidModel, NotFound, nearest
from tuili.server.registry import ledger, record
from tuili.server.registry.checking import is_whole
from tuili.server.registry.ledger import Action, Event
from tuili.server.registry.record import Record
from tuili.server.repository.layout import find_model, version_folders, versions_of

_TAG: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model as history shows it."""

    number: int
    record: Record | None
    tags: tuple[str, ...]
    state: str
    """served, old, withdrawn, incomplete or damaged."""


@dataclass(frozen=True, slots=True)
class By:
    """Who decides, when and why."""

    user: str
    at: str
    why: str = ""


def model_folder(repositories: Sequence[Path], name: str) -> Path:
    """The folder of a model; raises NotFound."""
    folder = find_model(repositories, name)
    if folder is None:
        known = [each.name for place in repositories for each in place.iterdir() if each.is_dir()]
        places = ", ".join(map(str, repositories))
        raise NotFound(f"no model {name!r} in {places}.{nearest(name, known)}")
    return folder


def history(folder: Path) -> list[Version]:
    """All versions on disk, ascending."""
    decided = ledger.read(folder)
    newest = max(versions_of(folder), default=0)
    found: list[Version] = []
    for number in version_folders(folder):
        tags = tuple(sorted(tag for tag, at in decided.tags.items() if at == number))
        about, state = _state(folder / str(number))
        if number in decided.withdrawn:
            state = "withdrawn"
        elif state == "whole":
            state = "newest" if number == newest else "old"
        found.append(Version(number, about, tags, state))
    return found


def _state(version: Path) -> tuple[Record | None, str]:
    try:
        about = record.read(version)
    except InvalidArtifact:
        return None, "damaged"
    return about, "whole" if is_whole(version) else "incomplete"


def resolve(folder: Path, text: str) -> int:
    """The version that a number or a tag names; raises NotFound."""
    there = version_folders(folder)
    tags = ledger.read(folder).tags
    number = tags.get(text) if not text.isdecimal() else int(text)
    if number in there:
        assert number is not None
        return number
    known = [*map(str, there), *tags]
    raise NotFound(
        f"model {folder.name!r} has no version {text!r}; it has {', '.join(known) or 'none'}."
        f"{nearest(text, known)}"
    )


def described(folder: Path, text: str) -> Record:
    """The record of the version that a number or a tag names; raises NotFound."""
    number = resolve(folder, text)
    found = record.read(folder / str(number))
    if found is None:
        raise NotFound(
            f"version {number} of {folder.name!r} has no record: it was copied into the "
            "repository, not published"
        )
    return found


def tag(folder: Path, text: str, name: str, by: By) -> int:
    """Let the tag `name` point to a version; the version's number."""
    if not _TAG.fullmatch(name):
        raise InvalidArgument(
            f"invalid tag {name!r}: letters, digits, '_', '.', '-', no digit first, 64 at most"
        )
    with ledger.locked(folder):
        number = resolve(folder, text)
        if number not in versions_of(folder):
            raise InvalidModel(
                f"version {number} of {folder.name!r} is incomplete or withdrawn; a tag would "
                "promise that it can be served"
            )
        ledger.append(folder, _event(by, "tag", number, name))
    return number


def untag(folder: Path, name: str, by: By) -> int:
    """Remove a tag; the number of the version it pointed to."""
    with ledger.locked(folder):
        tags = ledger.read(folder).tags
        if name not in tags:
            raise NotFound(f"model {folder.name!r} has no tag {name!r}.{nearest(name, tags)}")
        ledger.append(folder, _event(by, "untag", tags[name], name))
        return tags[name]


def rollback(folder: Path, by: By, to: str | None = None) -> tuple[int, list[int]]:
    """Withdraw all versions above `to` (default: the one before the newest): (to, withdrawn).

    Nothing is deleted: `restore` takes it back, and the next published version is served again.
    """
    with ledger.locked(folder):
        there = versions_of(folder)
        if to is None:
            if len(there) < 2:
                raise NotFound(
                    f"model {folder.name!r} has no version to go back to; it has {there or 'none'}"
                )
            target = there[-2]
        else:
            target = resolve(folder, to)
            if target not in there:
                raise InvalidModel(
                    f"version {target} of {folder.name!r} is incomplete or withdrawn itself"
                )
        gone = [number for number in there if number > target]
        if not gone:
            raise InvalidArgument(f"version {target} of {folder.name!r} is the newest one already")
        ledger.append(folder, *(_event(by, "withdraw", number) for number in gone))
    return target, gone


def restore(folder: Path, text: str, by: By) -> int:
    """Take the withdrawal of a version back; its number."""
    with ledger.locked(folder):
        number = resolve(folder, text)
        if number not in ledger.read(folder).withdrawn:
            raise InvalidArgument(f"version {number} of {folder.name!r} is not withdrawn")
        ledger.append(folder, _event(by, "restore", number))
    return number


def _event(by: By, action: Action, version: int, tag: str = "") -> Event:
    return Event(by.at, by.user, action, version, tag, by.why)

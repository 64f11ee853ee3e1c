"""The repositories of `tuili serve`: folders and URLs, with namespaces where they are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from tuili.errors import InvalidArgument


def places(
    given: Sequence[str], cache: Path | None, namespacing: bool
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The folders to serve, and the URLs that some of them mirror.

    One that is named NAME=PLACE gives namespaces to all; the others are called as their folders.
    """
    from tuili.server.remote.mirror import mirror_folder
    from tuili.server.remote.store import is_url
    from tuili.server.repository.compiling import cache_folder

    pairs = [_split(each) for each in given]
    for _, place in pairs:
        if not is_url(place) and not Path(place).is_dir():
            raise typer.BadParameter(_no_folder(Path(place)), param_hint="REPOSITORY")
    folders = [
        mirror_folder(cache_folder(cache), place) if is_url(place) else Path(place)
        for _, place in pairs
    ]
    urls = tuple(place for _, place in pairs if is_url(place))
    if namespacing or any(name for name, _ in pairs):
        return _named(pairs, folders), urls
    return tuple(folders), urls


def _no_folder(place: Path) -> str:
    if not place.exists():
        return f"Directory {str(place)!r} does not exist."
    return (
        f"{str(place)!r} is a file, expected a repository: a folder that holds the model as "
        f"{place.stem}/1/model{place.suffix}"
    )


def _named(pairs: Sequence[tuple[str, str]], folders: Sequence[Path]) -> tuple[Path, ...]:
    from tuili.server.repository.namespaces import named

    spaces: dict[str, Path] = {}
    for (name, place), folder in zip(pairs, folders, strict=True):
        space = name or _folder_name(place)
        if space in spaces:
            raise InvalidArgument(
                f"two repositories would have namespace {space!r}: {spaces[space]} and {place}; "
                f"give one another name: NAME={place}"
            )
        spaces[space] = folder
    return named(spaces)


def _split(text: str) -> tuple[str, str]:
    """(name or "", place); what exists as it is written has no name."""
    from tuili.server.repository.namespaces import NAME

    name, sign, place = text.partition("=")
    if sign and NAME.fullmatch(name) and not Path(text).exists():
        return name, place
    return "", text


def _folder_name(place: str) -> str:
    """The last part of a path or URL."""
    if "://" in place:
        return place.rstrip("/").rpartition("/")[2]
    return Path(place).resolve().name

"""Where models lie: `REPOSITORY/model/version/file`, Triton's layout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tuili.errors import InvalidArgument, InvalidModel, NotFound
from tuili.server.registry import ledger
from tuili.server.registry.checking import is_whole
from tuili.server.repository import recordings
from tuili.server.repository.statuses import status_of

_NAME: Final = re.compile(r"[^/\\\0-\x1f\x7f]{1,255}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")
ARTIFACT: Final = "model.tuili"
PACKED: Final = "model.tuiliz"
ONNX: Final = "model.onnx"
PYTHON: Final = "model.py"
_MODELS: Final = frozenset(Path(name).suffix for name in (ARTIFACT, PACKED, ONNX))


class Namespaced(tuple[Path, ...]):  # noqa: SLOT001 - of a length of its own
    """Repositories with a namespace each: their models are called NAMESPACE/NAME."""

    by_name: Mapping[str, Path]

    def __new__(cls, places: Mapping[str, Path]) -> Self:
        made = super().__new__(cls, places.values())
        made.by_name = dict(places)
        return made


def check_name(name: str) -> str:
    """`name`, if a model may be called so: one path component, nothing hidden."""
    if not name.strip():
        raise InvalidArgument("Model name cannot be empty. Please enter a valid name to deploy.")
    if "/" in name or "\\" in name or name.strip() in (".", ".."):
        raise InvalidArgument(
            f"model name must not contain path traversal characters, got {name!r}"
        )
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise InvalidArgument(
            f"invalid model name {name!r}, failed to poll from model repository: it must name a "
            "folder there that is not hidden"
        )
    return name


def check_whole_name(repositories: Sequence[Path], name: str) -> str:
    """As `check_name`; where repositories have namespaces, NAMESPACE/NAME is a name as well."""
    space, _, plain = name.partition("/")
    spaced = isinstance(repositories, Namespaced) and space in repositories.by_name
    check_name(plain if spaced and plain else name)
    return name


def find_models(repositories: Sequence[Path]) -> dict[str, list[Path]]:
    """All model folders by name; a name with more than one folder is for the caller to refuse."""
    found: dict[str, list[Path]] = {}
    for name, repository, own in _each_model(repositories):
        found.setdefault(name, []).append(repository / own)
    return found


def model_names(repositories: Sequence[Path]) -> set[str]:
    """The names alone, of which there may be thousands."""
    return {name for name, _, _ in _each_model(repositories)}


def _each_model(repositories: Sequence[Path]) -> Iterator[tuple[str, Path, str]]:
    """The name of each model, its repository and the name of its folder."""
    spaces = list(repositories.by_name) if isinstance(repositories, Namespaced) else []
    for at, repository in enumerate(repositories):
        try:
            with os.scandir(repository) as entries:
                names = sorted(each.name for each in entries if _is_model(each))
        except OSError as error:
            raise NotFound(f"model repository {repository} cannot be read: {error}") from error
        for own in names:
            yield f"{spaces[at]}/{own}" if spaces else own, repository, own


def _is_model(entry: os.DirEntry[str]) -> bool:
    named = _NAME.fullmatch(entry.name) and not entry.name.startswith(".")
    return bool(named) and entry.is_dir()


def find_model(repositories: Sequence[Path], name: str) -> Path | None:
    """The folder of one model, or None."""
    if isinstance(repositories, Namespaced) and "/" in name:
        space, _, name = name.partition("/")
        repositories = [repositories.by_name[space]] if space in repositories.by_name else []
    folders = [folder for each in repositories if (folder := each / check_name(name)).is_dir()]
    if len(folders) > 1:
        places = ", ".join(str(folder.parent) for folder in folders)
        raise InvalidModel(
            f"model {name!r} is in more than one repository: {places}. Rename one, or serve them "
            "with --model-namespacing, which tells them apart as NAMESPACE/NAME"
        )
    return folders[0] if folders else None


def versions_of(folder: Path) -> list[int]:
    """The versions of a model that may be served: whole ones that nobody withdrew."""
    withdrawn = ledger.read(folder).withdrawn
    return [
        version
        for version in version_folders(folder)
        if version not in withdrawn and is_whole(folder / str(version))
    ]


def version_folders(folder: Path) -> list[int]:
    """The version folders of a model: positive numbers without leading zeros."""
    return sorted(
        int(each.name)
        for each in folder.iterdir()
        if each.is_dir() and _VERSION.fullmatch(each.name)
    )


def no_version(folder: Path) -> str:
    """That a model has no version folder, and what is meant to be in one."""
    if loose := _loose(folder):
        return f"no version folder; move {loose[0]} to {folder.name}/1/"
    return "no version folder"


def lost_models(repositories: Sequence[Path]) -> list[str]:
    """Models that lie in a repository itself, where no server looks for them."""
    return [
        f"{repository / name} is not served: a repository holds a model as NAME/1/{name}"
        for repository in repositories
        for name in _loose(repository)[:1]
        if name != PYTHON
    ]


def _loose(folder: Path) -> list[str]:
    """Files of models that no version folder holds."""
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError:  # told where it is read for what is to be served
        return []
    return sorted(name for name in names if Path(name).suffix in _MODELS or name == PYTHON)


def model_file(version: Path, filename: str) -> Path:
    """The model of a version folder; an artifact is preferred to its source."""
    if filename:
        path = version / filename
        if path.exists():
            return path
        raise InvalidModel(f"{path} is missing; default_model_filename names it")
    for name in (ARTIFACT, PACKED, ONNX, PYTHON):
        if (version / name).exists():
            return version / name
    there = sorted(each.name for each in version.iterdir())
    raise InvalidModel(
        f"{version} holds none of {ARTIFACT}, {PACKED}, {ONNX}, {PYTHON}; "
        f"found {there or 'nothing'}"
    )


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when any file does that may be served: relative path, time of change and size.

    Versions that are half copied or withdrawn are left out, so are the ledger itself and what was
    recorded, which a load reads but none is made for.
    """
    unserved = _unserved(folder)
    entries: list[tuple[str, int, int]] = []
    for parent, folders, files in os.walk(folder):
        top = parent == str(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (top and name in unserved)
        )
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith(".") or (top and name in unserved):
                continue
            if (status := status_of(path)) is not None:
                entries.append((str(path.relative_to(folder)), status.st_mtime_ns, status.st_size))
        if not files and not folders:
            entries.append((str(Path(parent).relative_to(folder)) + "/", 0, 0))
    return tuple(entries)


def require_files(version: Path) -> None:
    """InvalidModel for a pipe, socket or device instead of a file: to read it may never end."""
    beside = [each for each in version.parent.iterdir() if not each.is_dir()]
    inside = [Path(parent, name) for parent, _, files in os.walk(version) for name in files]
    for path in (*beside, *inside):
        if path.exists() and not path.is_file():
            raise InvalidModel(f"{path} is neither a file nor a folder; remove it")


def _unserved(folder: Path) -> set[str]:
    """What in a model's folder has no part in what is served."""
    try:
        served = set(versions_of(folder))
    except InvalidModel:
        return set()  # a damaged ledger: the model is loaded again once that is mended
    return {ledger.LEDGER, recordings.FOLDER} | {
        str(version) for version in version_folders(folder) if version not in served
    }

"""Artifacts of a repository are served from a copy, so that nobody overwrites what is mapped.

Weights are mapped, not read. Whoever copies a new model over the old one (`cp`, `rsync --inplace`)
first empties the files under the server, where the next touch ends the process, and then lets it
answer with half of each. A published version is never overwritten and needs no copy; nor does what
the server has compiled itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tuili.server.registry.record import RECORD
from tuili.server.scratch import scratch

_log = logging.getLogger("tuili.server")

_FOLDER: Final = "kept"
_COPYING: Final = "copying-"


def kept(artifact: Path, version: Path, cache: Path) -> Path:
    """The copy of an artifact of a version, made if there is none of what it is now.

    There is one of each artifact: a new one replaces that of what it was before, which those who
    have it mapped keep. Where there is no room for it, the artifact itself is served.
    """
    if (version / RECORD).exists():
        return artifact
    try:
        mine = cache / _FOLDER / _key(str(artifact.resolve()))
        copy = mine / _key(repr(list(_members(artifact)))) / artifact.name
        if not copy.exists():
            _make(artifact, copy)
        if not copy.exists():
            raise FileNotFoundError(f"{copy} has gone again")
    except OSError as error:
        _log.warning(
            "%s is served in place, as no copy of it can be kept in %s: %s; do not overwrite it",
            artifact, cache, error,
        )  # fmt: skip
        return artifact
    return copy


def _key(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]


def _members(artifact: Path) -> Iterator[tuple[str, int, int, int]]:
    """Its files: names, sizes, times of change and inodes."""
    for path in sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]:
        status = path.stat()
        yield str(path.relative_to(artifact)), status.st_size, status.st_mtime_ns, status.st_ino


def _make(artifact: Path, copy: Path) -> None:
    """Whole or not at all; what was kept of the artifact before goes."""
    mine = copy.parent.parent
    mine.mkdir(parents=True, exist_ok=True)
    with scratch(mine, _COPYING) as made:
        if artifact.is_dir():
            shutil.copytree(artifact, made / artifact.name)
        else:
            shutil.copyfile(artifact, made / artifact.name)
        before = [each for each in mine.iterdir() if not each.name.startswith(_COPYING)]
        with suppress(OSError):  # another server was quicker
            made.rename(copy.parent)
        for each in before:
            if each != copy.parent:
                shutil.rmtree(each, ignore_errors=True)

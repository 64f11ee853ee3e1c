"""The files that a command writes at its end: refused before its work, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from tuili.codegen.whole import put
from tuili.errors import InvalidArgument, in_words


def check_outputs(*paths: Path | None) -> None:
    """Raise for a file that cannot be written: not after minutes of work, which would be lost."""
    for path in paths:
        why = _hindrance(path) if path is not None else ""
        if why:
            raise _refusal(path, why)


def write_output(path: Path, data: str | bytes) -> None:
    """Write a file; raises InvalidArgument."""
    try:
        put(path, data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise _refusal(path, in_words(error)) from None


def _refusal(path: Path | None, why: str) -> InvalidArgument:
    return InvalidArgument(f"the output {str(path)!r} cannot be written: {why}")


def _hindrance(path: Path) -> str:
    """Why a file cannot be written, as far as that shows before."""
    folder = path.parent
    if path.is_dir():
        return "it is a folder; name a file"
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist; make it first"
        return f"the folder {str(folder)!r} {what}"
    if not path.exists() and not os.access(folder, os.W_OK | os.X_OK):
        return f"nothing may be written in {str(folder)!r}; name another place"
    return ""

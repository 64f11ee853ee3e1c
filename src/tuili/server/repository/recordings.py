"""Recordings: the files of recorded requests in a model's folder, by which its loads warm up."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from tuili.server.registry import ledger

FOLDER: Final = "recorded"
_SUFFIX: Final = ".request"


def read(folder: Path) -> dict[Path, bytes]:
    """The content of all files of a model; OSError where one cannot be read."""
    return {path: path.read_bytes() for path in sorted((folder / FOLDER).glob(f"*{_SUFFIX}"))}


def write(folder: Path, data: bytes) -> None:
    """Keep a request, under a name by its content; OSError where it cannot be written."""
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / (hashlib.sha256(data).hexdigest()[:16] + _SUFFIX)
    ledger.replace(path, data)

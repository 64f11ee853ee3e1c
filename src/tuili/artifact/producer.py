"""Who makes artifacts: a hash of tuili's own source. Another compiler makes other code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable


@cache
def producer_digest() -> str:
    """A hash of everything in the installed package that code is made by and of."""
    digest = hashlib.sha256()
    _add_folder(digest, files("tuili"))
    return digest.hexdigest()


def _add_folder(digest: hashlib._Hash, folder: Traversable) -> None:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir():
            _add_folder(digest, entry)
        elif entry.name.endswith((".py", ".c", ".h")):
            digest.update(entry.read_bytes())

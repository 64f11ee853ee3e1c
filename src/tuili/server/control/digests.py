"""Digests: what exactly a version was, for the journal."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and contents of a version's files; "" if they cannot be read."""
    found = hashlib.sha256()
    try:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return ""
    return f"sha256:{found.hexdigest()}"

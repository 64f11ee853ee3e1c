"""Files that appear whole or not at all, whatever ends the process or fills the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path


def put(path: Path, data: bytes) -> None:
    """Write a file in the place of an older one; a device or pipe is written to as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:100]}-") as scratch:
        made = Path(scratch) / "made"
        made.write_bytes(data)
        made.replace(path)

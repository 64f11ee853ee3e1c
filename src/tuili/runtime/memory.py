"""Memory: how much of it this process may use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_ROOT = Path("/")
_GROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")
_UNKNOWN = 8 << 30


@cache
def usable_bytes(root: Path = _ROOT) -> int:
    """The memory of the machine, or of the control group that holds this process."""
    limits = [_number(root / "sys/fs/cgroup" / name) for name in _GROUP_FILES]
    return min((limit for limit in (*limits, _physical()) if limit), default=_UNKNOWN)


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def _number(path: Path) -> int:
    """The number in a system file; 0 when there is none."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0

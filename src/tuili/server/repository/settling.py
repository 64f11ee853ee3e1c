"""Settling: whether a version is still being copied into the repository by `cp`, `rsync` or `scp`.

A published version says by its record when it is whole. A plain folder does not, so it has settled
when nothing in it changed for a while and no process writes one of its files. The time of change
of an inode (ctime) is what counts: copies that keep times (`cp -p`, `rsync -a`) cannot set it.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuili.server.registry.record import RECORD
from tuili.server.repository.layout import version_folders
from tuili.server.repository.statuses import status_of

# A file system without leases says of every file that it is written: after this time nobody
# believes it any more.
_STALLED_S: Final = 30.0
# How far a change may lie in the future before the clock must have been set back.
_AHEAD_S: Final = 1.0


def copies(folder: Path, now: float, settle_s: float) -> dict[int, str]:
    """The versions of a model that have not settled, and why."""
    found = {each: unsettled(folder / str(each), now, settle_s) for each in version_folders(folder)}
    return {version: why for version, why in found.items() if why}


def unsettled(version: Path, now: float, settle_s: float) -> str:
    """Why a version's folder is not to be loaded yet, or ""; `now` is the wall clock's."""
    if (version / RECORD).exists():
        return ""
    newest, path = max(_changes(version), default=(0.0, version))
    age = now - newest
    if age < -_AHEAD_S or age >= max(settle_s, _STALLED_S):
        return ""
    if age < settle_s:
        return f"it is being copied: {path.name!r} changed {max(age, 0.0):.1f} s ago"
    return being_written(version, now)


def being_written(version: Path, now: float) -> str:
    """Which file of a version some process is writing at this moment, or ""."""
    if (version / RECORD).exists():
        return ""
    for changed, path in _changes(version):
        if 0 <= now - changed + _AHEAD_S < _STALLED_S and path.is_file() and _has_writer(path):
            return f"it is being copied: a process is writing {path.name!r}"
    return ""


def _changes(version: Path) -> Iterator[tuple[float, Path]]:
    """When each file and folder of a version changed last."""
    for parent, _, names in os.walk(version):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            # None: the temporary name of a copy, for one.
            if (status := status_of(path)) is not None:
                yield status.st_ctime, path


def _has_writer(path: Path) -> bool:
    """Whether the file is open for writing: then nobody gets a read lease on it (fcntl(2))."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Who opens the file while we hold the lease would have the kernel send SIGIO, which ends
        # a process that does not expect it; this signal is ignored by default.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return False  # no leases here, or not for us
    else:
        return False
    finally:
        os.close(handle)  # gives the lease back too

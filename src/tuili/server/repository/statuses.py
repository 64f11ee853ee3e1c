"""The status of a file in a repository, which may have gone, or lead nowhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

# Gone meanwhile, a link to itself, behind a closed door. Others, such as an input or output error
# of a file system of another machine, say nothing about the file.
_NO_FILE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES))


def status_of(path: Path) -> os.stat_result | None:
    """The status of what is there; None where there is no file to be served."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise

"""Artifacts some of whose nodes have no native code: Python runs those by their NumPy meaning."""

from __future__ import annotations

from pathlib import Path

import tuili.runtime
from tuili.backends import BackendOptions, Executable
from tuili.host import HostSteps


def load(path: Path, options: BackendOptions) -> Executable:
    """The artifact at `path`, with Python for what it cannot run itself."""
    return tuili.runtime.load(path, threads=options.threads, host=HostSteps)

"""Native artifacts: what `tuili compile` wrote, run by tuili's own runtime."""

from __future__ import annotations

from pathlib import Path

import tuili.runtime
from tuili.backends import BackendOptions, Executable


def load(path: Path, options: BackendOptions) -> Executable:
    """The artifact at `path`; weights are mapped, so that several instances share them."""
    return tuili.runtime.load(path, threads=options.threads)

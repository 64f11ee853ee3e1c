"""The C sources that every compiled model carries, as text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def abi_header() -> str:
    """What compiled models and the runtime agree on; comes first in a unit."""
    return _text("tuili_abi.h")


def pool_source() -> str:
    """The thread pool; once per library, after the ABI header."""
    return _text("tuili_wait.h") + _text("tuili_pool.c")


def run_support() -> str:
    """What a run function uses: `tl_split`, `tl_barrier_wait`, `tl_plan_arena`.

    Comes after the ABI header. Defines `tuili_abi` and `tuili_free`, hence once per library.
    """
    return _text("tuili_wait.h") + _text("tuili_run_support.h")

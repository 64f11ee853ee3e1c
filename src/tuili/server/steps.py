"""Steps: long work that pauses now and then, so that others may have their turn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

Found = TypeVar("Found")
Steps = Generator[None, None, Found]


def at_once(work: Steps[Found]) -> Found:
    """What `work` returns, without a turn for anybody else."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def unless(work: Steps[Found], over: Callable[[], bool]) -> Steps[Found | None]:
    """What `work` returns; None when it is `over` before, and nobody waits for it."""
    while not over():
        try:
            next(work)
        except StopIteration as end:
            return end.value
        yield
    work.close()
    return None

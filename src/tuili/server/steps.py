"""Steps: long work that pauses now and then, so that others may have their turn."""

from __future__ import annotations

from collections.abc import Generator
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

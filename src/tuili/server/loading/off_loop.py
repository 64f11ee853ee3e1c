"""Work of a load, on a thread beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from tuili.errors import InternalError

Found = TypeVar("Found")
Args = TypeVarTuple("Args")


async def off_loop(function: Callable[[*Args], Found], *args: *Args) -> Found:
    """As `asyncio.to_thread`, for functions that run code of others.

    A future cannot hold a StopIteration: who waits for it would wait for ever (PEP 479).
    """

    def found() -> Found:
        try:
            return function(*args)
        except StopIteration as error:
            raise InternalError(f"StopIteration: {error}") from error

    return await asyncio.to_thread(found)

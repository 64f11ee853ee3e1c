"""Work of a load, on a thread beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from tuili.errors import InternalError

Found = TypeVar("Found")
Args = TypeVarTuple("Args")


async def off_loop(function: Callable[[*Args], Found], *args: *Args) -> Found:
    """As `asyncio.to_thread`, for functions that run code of others, which may hang.

    So each has a thread of its own: a pool's would be used up, and nobody waits for it at the end.
    A future cannot hold a StopIteration: who waits for it would wait for ever (PEP 479).
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Found] = loop.create_future()

    def settle(found: Found | None, error: BaseException | None) -> None:
        if waiting.done():
            return
        if isinstance(error, StopIteration):
            error = InternalError(f"StopIteration: {error}")
        if error is not None:
            waiting.set_exception(error)
        else:
            waiting.set_result(found)  # pyright: ignore[reportArgumentType] - of an error alone

    def work() -> None:
        found: Found | None = None
        error: BaseException | None = None
        try:
            found = function(*args)
        except BaseException as raised:  # noqa: BLE001 - raised again by who waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=work, name="loading", daemon=True).start()
    return await waiting

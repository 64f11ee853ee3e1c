"""Turns: how much of a large body is read before others have their turn.

The loops read on as long as a socket has something, megabytes at a time: a hundred clients that
send large bodies had the next request of any other wait for a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# Of a body, at once: a picture passes whole.
TURN_BYTES: Final = 1 << 20


class Turn:
    """What was read of one client's large bodies since the others were looked at."""

    __slots__ = ("_read",)

    def __init__(self) -> None:
        self._read = 0

    def read(
        self,
        size: int,
        transport: asyncio.Transport | None,
        loop: asyncio.AbstractEventLoop | None,
        wants_more: Callable[[], bool] | None = None,
    ) -> None:
        """`size` bytes more: after enough, no more until the others were looked at.

        Then only if the client's protocol `wants_more`; without a loop, nothing is held up.
        """
        self._read += size
        if self._read >= TURN_BYTES and transport is not None:
            self._read = 0
            if loop is not None:
                transport.pause_reading()
                loop.call_soon(_go_on, transport, wants_more)


def _go_on(transport: asyncio.Transport, wants_more: Callable[[], bool] | None) -> None:
    if not transport.is_closing() and (wants_more is None or wants_more()):
        transport.resume_reading()

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


def rest(
    transport: asyncio.Transport,
    loop: asyncio.AbstractEventLoop | None,
    wants_more: Callable[[], bool],
) -> None:
    """Read no more from this client until the others were looked at; without a loop, do nothing."""
    if loop is not None:
        transport.pause_reading()
        loop.call_soon(_go_on, transport, wants_more)


def _go_on(transport: asyncio.Transport, wants_more: Callable[[], bool]) -> None:
    if not transport.is_closing() and wants_more():
        transport.resume_reading()

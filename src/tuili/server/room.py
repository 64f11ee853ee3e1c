"""Room: the bytes that requests under way hold in all, and who gives way where there is no more.

Each connection has its bounds, but there may be thousands. Counted are bodies that do not come at
once, until their answer, and answers that wait for their client. Where they are too much, what has
been on its way the longest gives way: whoever is not slow on purpose, or far too slow, has arrived
before. What has come whole stays, and more does not come in beside it. What a body unpacks to cost
its client next to nothing to send: it takes what is free, and nobody gives way for it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

from tuili.errors import Overloaded, TooLarge
from tuili.runtime.memory import usable_bytes
from tuili.server.options import ServerOptions

_LOG: Final = logging.getLogger("tuili.server")

GiveWay = Callable[[Overloaded], None]


class Room:
    """What all connections of a process share; a key is whatever holds bytes."""

    def __init__(self, most_bytes: int = sys.maxsize) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self.gave_way = 0
        # The oldest first.
        self._moving: dict[object, tuple[int, GiveWay]] = {}
        self._settled: dict[object, int] = {}

    def grow(self, key: object, size: int, give_way: GiveWay) -> None:
        """`size` bytes more are here of what is on its way; it may have to give way itself."""
        found = self._moving.get(key)
        self._moving[key] = (size if found is None else found[0] + size, give_way)
        self.held_bytes += size
        self._make_room()

    def weigh(self, key: object, size: int, give_way: GiveWay) -> None:
        """As `grow`, told what it is in all."""
        if not size:
            self.leave(key)
            return
        found = self._moving.get(key)
        self.grow(key, size if found is None else size - found[0], give_way)

    def weigh_unread(self, transport: asyncio.WriteTransport, waiting_bytes: int = 0) -> int:
        """What a client has not read yet, and what waits behind that; it is cut to give way."""
        size = waiting_bytes + transport.get_write_buffer_size()
        self.weigh(transport, size, lambda _: transport.abort())
        return size

    def settle(self, key: object, size: int) -> None:
        """The last `size` bytes are here: what is whole does not give way."""
        found = self._moving.pop(key, None)
        before = self._settled.get(key, 0) if found is None else found[0]
        self._settled[key] = before + size
        self.held_bytes += size
        self._make_room()

    def take(self, key: object, size: int) -> None:
        """`size` bytes more of what does not give way, if they are free.

        Else TooLarge where nothing but `key` is in the way, and Overloaded where others are.
        """
        found = self._moving.get(key)
        own = self._settled.get(key, 0) if found is None else found[0]
        if self.held_bytes + size > self.most_bytes:
            self._refused()
            if own + size > self.most_bytes:
                raise TooLarge(_NEVER.format(self.most_bytes))
            raise Overloaded(_NOT_NOW.format(self.most_bytes))
        self._moving.pop(key, None)
        self._settled[key] = own + size
        self.held_bytes += size

    def leave(self, key: object) -> None:
        """Nothing of it is held any more."""
        found = self._moving.pop(key, None)
        self.held_bytes -= self._settled.pop(key, 0) if found is None else found[0]

    def lines(self) -> list[str]:
        """The Prometheus text."""
        found: list[str] = []
        for name, kind, text, value in (
            ("tuili_request_memory_bytes", "gauge", "Held by requests under way", self.held_bytes),
            ("tuili_requests_gave_way", "counter", "Requests refused for memory", self.gave_way),
        ):
            found += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
        return found

    def _make_room(self) -> None:
        while self.held_bytes > self.most_bytes and self._moving:
            oldest = next(iter(self._moving))
            size, give_way = self._moving.pop(oldest)
            self.held_bytes -= size
            self._refused()
            give_way(Overloaded(_TEXT.format(self.most_bytes)))

    def _refused(self) -> None:
        self.gave_way += 1
        if self.gave_way == 1:
            _LOG.warning(
                "requests under way hold %d MiB, as much as they may: those that have been on"
                " their way the longest are refused (--request-memory-mb; told once)",
                self.most_bytes >> 20,
            )


def room_of(options: ServerOptions) -> Room:
    """The room of one process: half of all memory unless somebody says how much, shared by all."""
    return Room((options.request_memory_bytes or usable_bytes() // 2) // options.frontends)


_TEXT: Final = (
    "requests under way hold as much memory as they may ({} bytes, --request-memory-mb), and this"
    " one has been coming the longest; try again later"
)
_NOT_NOW: Final = (
    "requests under way hold as much memory as they may ({} bytes, --request-memory-mb), and no"
    " more is free for what this one unpacks to; try again later"
)
_NEVER: Final = (
    "the request unpacks to more than all requests under way may hold ({} bytes,"
    " --request-memory-mb)"
)

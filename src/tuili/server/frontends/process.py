"""FrontEndProcess: one front end as the owner sees it."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from tuili.server.frontends.messages import (
    Begin,
    Count,
    Done,
    Link,
    LogSettings,
    Offer,
    Refused,
    Retract,
    Stop,
    ToOwner,
    Up,
)
from tuili.server.telemetry.transfer import Counts

_log = logging.getLogger("tuili.server")
_EXIT_S: Final = 5.0


class FrontEndProcess:
    """Started again with the same number after it died; all on the event loop."""

    def __init__(
        self,
        at: int,
        counted: Callable[[int, list[Counts]], None],
        gone: Callable[[int], None],
    ) -> None:
        self._at = at
        self._counted = counted
        self._gone = gone
        self.up = False
        self.trouble = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._asked = self._done = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._starting: asyncio.Future[None] | None = None
        self._stopping = False

    async def start(self, begin: Begin, timeout_s: float) -> None:
        """Start it, and wait until it listens or cannot."""
        loop = asyncio.get_running_loop()
        self._starting = loop.create_future()
        self.trouble = ""
        self._asked = self._done = 0
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.to_thread(_spawn, theirs)
        self._link = link = Link(ToOwner, self._take, self._lost)
        await loop.create_connection(lambda: link, sock=ours)
        link.send(begin)
        try:
            await asyncio.wait_for(self._starting, timeout_s)
        except TimeoutError:
            self.trouble = f"it did not listen within {timeout_s:g} s"
            self._kill()
            await asyncio.to_thread(self._process.wait)

    def send(self, message: Offer | Retract | Count | LogSettings) -> None:
        """Tell it something, if it is there; a fresh one is told of all offers anyway."""
        if self._link is not None and self.up:
            if isinstance(message, Retract | Count):
                self._asked = message.number
            self._link.send(message)

    async def reached(self, number: int, timeout_s: float) -> None:
        """Return once it has seen to what it was asked up to `number`; it is ended otherwise."""
        if not self.up or self._done >= min(number, self._asked):
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append((min(number, self._asked), waiting))
        try:
            await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            _log.error("front end %d did not answer within %g s", self._at + 1, timeout_s)
            self._kill()

    async def stop(self, order: Stop, timeout_s: float) -> bool:
        """Have it end; false when it had requests left."""
        self._stopping = True
        if self._process is None:
            return True
        if self._link is not None:
            self._link.send(order)
        try:
            status = await asyncio.to_thread(self._process.wait, timeout_s + _EXIT_S)
        except subprocess.TimeoutExpired:
            self._kill()
            return False
        return status == 0

    def _take(self, message: ToOwner) -> None:
        if isinstance(message, Up):
            self.up, self.trouble = True, ""
            self._started()
        elif isinstance(message, Refused):
            self.trouble = message.text
        else:
            self._counted(self._at, message.counts)
            self._reach(message)

    def _reach(self, message: Done) -> None:
        self._done = max(self._done, message.number)
        still = [(number, each) for number, each in self._waiting if number > self._done]
        for number, each in self._waiting:
            if number <= self._done and not each.done():
                each.set_result(None)
        self._waiting = still

    def _started(self) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.set_result(None)

    def _lost(self) -> None:
        """Its end of the socket is closed: it is dead, or as good as that."""
        self._link = None
        if self._stopping:
            return
        self._kill()
        self._asked = 0
        for _, each in self._waiting:
            if not each.done():
                each.set_result(None)
        self._waiting = []
        was_up, self.up = self.up, False
        process = self._process
        status = process.wait() if process is not None else 0
        if not self.trouble:
            self.trouble = f"exit status {status}"
        self._started()
        if was_up:
            self._gone(self._at)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuili.server.frontends.main", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        # A terminal's Ctrl-C is for the owner, which then ends its front ends.
        start_new_session=True,
    )

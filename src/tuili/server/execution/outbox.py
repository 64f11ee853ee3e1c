"""Outbox: what the server tells a model host beside its runs, as its socket takes it.

A host whose model keeps the interpreter to itself does not read for a while; meanwhile the socket
fills up, as a model may make any number of calls at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence

from tuili.backends import host_letters
from tuili.backends.host_calls import ToHost

_Letter = tuple[bytes, Sequence[int]]


class Outbox:
    """One end of a socket that does not block; all on the event loop."""

    def __init__(self, to: socket.socket) -> None:
        self.socket = to
        self._letters: deque[_Letter] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None  # while the socket is full

    def fileno(self) -> int:
        """The socket's descriptor; -1 when it is closed."""
        return self.socket.fileno()

    def send(self, message: ToHost, descriptor: int = -1) -> None:
        """Send a message after those before it; the descriptor that goes with it is closed."""
        self._letters.append(host_letters.letter(message, descriptor))
        if self._loop is None:
            self._go_on()

    def _go_on(self) -> None:
        while self._letters:
            raw, descriptors = self._letters[0]
            try:
                socket.send_fds(self.socket, [raw], descriptors)
            except BlockingIOError:
                self._wait()
                return
            except OSError:
                # The host is gone, or this end closed: it needs no answer.
                self._drop()
                return
            host_letters.let_go(self._letters.popleft()[1])
        self._stop_waiting()

    def _wait(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_writer(self.socket.fileno(), self._go_on)

    def _stop_waiting(self) -> None:
        if self._loop is not None and self.socket.fileno() >= 0:
            self._loop.remove_writer(self.socket.fileno())
        self._loop = None

    def _drop(self) -> None:
        self._stop_waiting()
        while self._letters:
            host_letters.let_go(self._letters.popleft()[1])

    def close(self) -> None:
        """Nothing is sent any more."""
        self._drop()
        self.socket.close()

"""Outgoing: the answers to one request of a model that answers any number of times.

They leave a model host from whatever thread the model gives them in, each with memory of its own,
so that many requests may be answered at once while the host takes the next ones.
"""

from __future__ import annotations

import socket
import sys
import threading

from tuili.backends import host_calls, host_letters
from tuili.backends.host_messages import Ended, One, Part
from tuili.backends.requests import Answered, kind_of


class Outgoing:
    """The stream number `number` of a slot."""

    def __init__(
        self, server: socket.socket, caller: host_calls.Caller, slot: int, number: int
    ) -> None:
        self._server = server
        self._caller = caller
        self._slot, self._number = slot, number
        self._lock = threading.Lock()
        self._over = threading.Event()

    def send(self, answer: Answered | None, final: bool) -> None:
        """One more answer, or None: the one before was the last. What comes later is dropped."""
        with self._lock:
            if self._over.is_set():
                return
            if answer is None:
                self._end(Ended(self._slot, self._number))
                return
            laid, capacity, descriptor, enclosed = host_calls.pack(answer.outputs)
            one = One(laid, answer.parameters)
            if answer.error is not None:
                one.kind, one.text = kind_of(answer.error), host_letters.text_of(answer.error)
            part = Part(self._slot, self._number, capacity, one, final, enclosed)
            if final:
                self._end(part, descriptor)
            else:
                self._tell(part, descriptor)

    def fail(self, kind: str, text: str) -> None:
        """The model failed: unless all answers were given, the stream ends with an error."""
        with self._lock:
            if not self._over.is_set():
                self._end(Ended(self._slot, self._number, kind, text))

    def wait(self) -> None:
        """Until all answers were given."""
        self._over.wait()

    def _end(self, message: Part | Ended, descriptor: int = -1) -> None:
        self._over.set()
        self._tell(message, descriptor)
        self._caller.forget(self._slot, self._number)

    def _tell(self, message: Part | Ended, descriptor: int = -1) -> None:
        try:
            host_letters.send(self._server, message, descriptor)
        except (BrokenPipeError, ConnectionResetError):
            # The server is gone; the loop of the host sees it too.
            sys.exit(0)

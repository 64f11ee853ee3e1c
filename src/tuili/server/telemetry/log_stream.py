"""LogStream: the log on a stream that may be a pipe which nobody reads.

A full pipe blocks whoever writes to it, and the server logs on its event loop. So a line is written
at once only where the stream takes it; else it waits for a thread that may block.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from contextlib import AbstractContextManager
from typing import Final

_AT_ONCE: Final = 4096  # what a pipe that can be written to takes without blocking (PIPE_BUF)
_MOST_WAITING: Final = 10_000  # lines; more are lost, and counted


class LogStream(logging.Handler):
    """Writes a line per record to a descriptor; never blocks."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        # What waits, the first of them being written; under the handler's own lock.
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, now or later."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception as error:  # noqa: BLE001 - what is logged must not stop who logs it
            line = f"{record.name}: a record cannot be formatted: {error!r}\n".encode()
        if not self._waiting:
            line = self._write_now(line)
        if not line:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(line)
        # A thread does not come along into a process that is forked.
        if self._writer is None or not self._writer.is_alive():
            self._writer = threading.Thread(target=self._write_waiting, name="log", daemon=True)
            self._writer.start()

    def _write_now(self, line: bytes) -> bytes:
        """Write what the stream takes; the rest of the line."""
        while line and self._poll.poll(0):
            line = self._write(line)
        return line

    def _write(self, line: bytes) -> bytes:
        try:
            return line[os.write(self._descriptor, line[:_AT_ONCE]) :]
        except OSError:
            return b""  # Nobody is there to be told.

    def _write_waiting(self) -> None:
        while (line := self._next()) is not None:
            while line:
                line = self._write(line)
            with self._guard():
                self._waiting.popleft()

    def _next(self) -> bytes | None:
        """The next line for the thread; None at its end."""
        with self._guard():
            if not self._waiting and self._lost:
                told = f"{self._lost} lines of the log are lost: nobody read those before them\n"
                self._waiting.append(told.encode())
                self._lost = 0
            if self._waiting:
                return self._waiting[0]
            self._writer = None
            return None

    def _guard(self) -> AbstractContextManager[bool]:
        assert self.lock is not None
        return self.lock

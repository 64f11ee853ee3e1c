"""OpenStream: a request of a model that answers any number of times, while answers may come.

Its run and its answers end apart: a model may take a request, answer it from a thread of its own,
and take the next one meanwhile. Whoever started it hears of both ends; all is on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tuili.backends.requests import Answered
from tuili.errors import Cancelled, TuiliError
from tuili.server.execution.pending import Pending
from tuili.server.execution.running import Outcome


class OpenStream:
    """One request, from its start until both its run and its answers have ended."""

    def __init__(self, item: Pending, done: Callable[[Outcome], None]) -> None:
        self.item = item
        self.released = False
        self.over = False
        self._done = done
        self._started_ns = item.part_ns = time.monotonic_ns()

    def take(self, answer: Answered | None) -> bool:
        """One answer, or None after the last; false when no more are wanted."""
        if answer is None:
            self.end()
        if self.over or self.item.part is None or answer is None:
            return False
        return self.item.part(answer)

    def release(self) -> None:
        """Its runner may take the next request."""
        if not self.released:
            self.released = True
            self._tell(frees=True, ends=False)
            self.forget()

    def end(self, error: TuiliError | None = None) -> None:
        """No more answers come, or are waited for."""
        if not self.over:
            self.over = True
            self._tell(frees=False, ends=True, error=error)

    def fail(self, error: TuiliError) -> None:
        """Its runner ended, or could not take it."""
        frees, ends = not self.released, not self.over
        self.released = self.over = True
        if frees or ends:
            self._tell(frees=frees, ends=ends, error=error)

    def forget(self) -> None:
        """End it where nobody waits for answers any more and its runner is free."""
        if self.released and self.item.reply is None:
            self.end(Cancelled("the request was cancelled"))

    def _tell(self, *, frees: bool, ends: bool, error: TuiliError | None = None) -> None:
        now_ns = time.monotonic_ns()
        started_ns = self._started_ns
        found = Outcome(started_ns, started_ns, now_ns, error=error, frees=frees, ends=ends)
        if error is None:
            found.outputs = {}
        self._done(found)

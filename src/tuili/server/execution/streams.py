"""OpenBatch: requests of a model that answers any number of times, while answers may come.

Their run and their answers end apart: a model may take a batch, answer it from threads of its own,
and take the next one meanwhile. Whoever started it hears of each end; all is on the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tuili.backends.requests import Answered
from tuili.errors import Cancelled, TuiliError
from tuili.server.execution.pending import Pending
from tuili.server.execution.running import Outcome


class OpenBatch:
    """Requests that run together, until their run and all their answers have ended."""

    def __init__(self, batch: Sequence[Pending], done: Callable[[Outcome], None]) -> None:
        self.released = False
        self._open = dict(enumerate(batch))
        self._done = done
        self._started_ns = time.monotonic_ns()
        for item in batch:
            item.part_ns = self._started_ns

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.released and not self._open

    def find(self, item: Pending) -> int | None:
        """The place of a request that may be answered yet."""
        return next((at for at, each in self._open.items() if each is item), None)

    def take(self, at: int, answer: Answered | None, final: bool) -> bool:
        """An answer, if there is one, and whether it is the last; false: no more are wanted."""
        item = self._open.get(at)
        if item is None or item.part is None:
            return False
        wanted = answer is None or item.part(item, answer, final)
        if final:
            self.end(at)
        return wanted

    def release(self, error: TuiliError | None = None) -> None:
        """Its runner may take the next batch; with an error the answers end too."""
        if not self.released:
            self.released = True
            self._tell(Outcome(*self._moments(), error=error, ends=False))
        for at in list(self._open):
            if error is not None:
                self.end(at, error)
            else:
                self.forget(at)

    def end(self, at: int, error: TuiliError | None = None) -> None:
        """No more answers come to a request, or are waited for."""
        if self._open.pop(at, None) is not None:
            self._tell(Outcome(*self._moments(), error=error, frees=False, at=at))

    def forget(self, at: int) -> None:
        """End a request for whose answers nobody waits, where the runner is free."""
        if self.released and self._open[at].reply is None:
            self.end(at, Cancelled("the request was cancelled"))

    def _moments(self) -> tuple[int, int, int]:
        return self._started_ns, self._started_ns, time.monotonic_ns()

    def _tell(self, found: Outcome) -> None:
        if found.error is None:
            found.outputs = {}
        self._done(found)

"""StepLimit: at most so many requests of one step of an ensemble under way.

It is Triton's `max_inflight_requests`: as there, the limit is shared by all requests to the
ensemble, and what is over it waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tuili.server.execution.pending import Ticket


class StepLimit:
    """The requests of a step: those under way are counted, the others wait, first come first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way = 0
        self._waiting: deque[Turn] = deque()
        self._starting = False

    def enter(self, turn: Turn) -> None:
        """Begin when there is room."""
        self._waiting.append(turn)
        self._go_on()

    def left(self, turn: Turn) -> None:
        """A request has ended, or is not wanted any more."""
        if turn.began:
            self._under_way -= 1
            self._go_on()
        else:
            self._waiting.remove(turn)

    def _go_on(self) -> None:
        # Who begins may end at once, and so come back here: that must not go ever deeper.
        if self._starting:
            return
        self._starting = True
        try:
            while self._waiting and self._under_way < self._most:
                self._under_way += 1
                self._waiting.popleft().begin()
        finally:
            self._starting = False


class Turn:
    """One request of a step; also its ticket. Who starts it tells its end to `over`."""

    def __init__(self, limit: StepLimit, start: Callable[[], Ticket]) -> None:
        self._limit = limit
        self._start = start
        self._ticket: Ticket | None = None
        self._over = False
        self.began = False

    def enter(self) -> None:
        """Start when there is room, which may be now."""
        self._limit.enter(self)

    def begin(self) -> None:
        """There is room."""
        self.began = True
        ticket = self._start()
        if not self._over:
            self._ticket = ticket

    def over(self) -> None:
        """The last answer was given."""
        if not self._over:
            self._over, self._ticket = True, None
            self._limit.left(self)

    def cancel(self) -> None:
        """Forget the request, be it under way or not."""
        ticket = self._ticket
        if not self._over:
            self.over()
            if ticket is not None:
                ticket.cancel()

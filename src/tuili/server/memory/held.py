"""Held: a request of the express way that uses clients' memory until it is answered."""

from __future__ import annotations

from typing import Protocol

from tuili.errors import TuiliError
from tuili.server.memory.standing import Standing
from tuili.server.protocol.messages import InferResponse, Reply


class Cancels(Protocol):
    """What can be taken back."""

    def cancel(self) -> object: ...


class Held:
    """Stands between a request and its transport, as its target and as its ticket.

    The memory is let go before the client hears of the answer: what it asks next may be whether the
    region is gone.
    """

    __slots__ = ("_reply", "_standing", "_target", "ticket")

    def __init__(self, standing: Standing, reply: Reply, target: object) -> None:
        self._standing: Standing | None = standing
        self._reply = reply
        self._target = target
        self.ticket: Cancels | None = None

    def answered(self, answer: InferResponse | TuiliError) -> None:
        """The answer came the long way."""
        self.end()
        self._reply(answer)

    def returned(self) -> object:
        """The target of the answer."""
        self.end()
        return self._target

    def cancel(self) -> None:
        """Nobody waits any more; a run that still reads keeps its views of the memory."""
        self.end()
        if self.ticket is not None:
            self.ticket.cancel()

    def end(self) -> None:
        """Let the memory go."""
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.release()

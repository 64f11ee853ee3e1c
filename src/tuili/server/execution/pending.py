"""Pending: one request from its arrival to its answer; also the ticket that its transport holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from tuili.backends.requests import Answered
from tuili.server.execution.express import Buffer, Express
from tuili.server.protocol import messages
from tuili.server.protocol.messages import Array, InferRequest
from tuili.server.scheduling.deadlock import AnyOf, Need

Reply = messages.Reply
StreamReply = messages.StreamReply


class Ticket(Protocol):
    """A request in progress."""

    def cancel(self) -> None:
        """Forget the request: it leaves the queue, and `reply` is not called any more."""


class Ended:
    """The ticket of a request that was answered at once."""

    def cancel(self) -> None:
        """Nothing is left to cancel."""


ENDED: Final = Ended()


class Process(Protocol):
    """A process that runs a model, as far as its calls of other models matter."""

    calling_run: int

    @property
    def current_run(self) -> int: ...
    @property
    def calls_others(self) -> bool: ...


class Canceller(Protocol):
    """Who can take a pending request back."""

    def cancel(self, item: Pending) -> None:
        """Drop the request."""
        ...

    def withdraw(self, item: Pending) -> None:
        """Ask for an early end of the request."""
        ...

    def needs(self) -> list[Need]:
        """What must happen before its instances run what waits."""
        ...


class Pending(msgspec.Struct, eq=False):
    """A checked request on its way through queue, batch and back end."""

    request: InferRequest
    reply: Reply | None
    arrays: dict[str, Array]
    rows: int
    lane: object
    level: int
    arrived_ns: int
    arrived: float
    expires: float  # when it must have left the queue; 0.0: whenever
    owner: Canceller
    queued: bool = False
    retried: bool = False
    # Of a model that answers any number of times: takes an answer, and whether it is the last;
    # says whether more are wanted. It is told of which request, and does not keep it alive.
    part: Callable[[Pending, Answered, bool], bool] | None = None
    parts: int = 0  # how many answers it got
    part_ns: int = 0  # when the last of them, or its run, began
    cache_key: bytes = b""
    end: Callable[[Pending], None] | None = None
    sequence: int | str = 0
    starts: bool = False
    ends: bool = False
    # The arrays as they came, where a layout put others in their place.
    plain: dict[str, Array] | None = None
    deadline: float = 0.0  # when its answer is of no use any more; 0.0: never
    client: str = ""  # for whom its place was given by the model's `Door`
    admitted: bool = False
    own_reply: Reply | None = None  # the transport's, under what the door put around it
    is_blank: bool = False  # it fills a row for which there is no request
    withdrawn: bool = False  # its model was asked to end it early
    process: Process | None = None  # where it runs, if it came of a call and not in this process
    # Of a request that goes the express way: its bytes, and where the bytes of its answer go.
    express: Express | None = None
    raw: Buffer | None = None
    target: Any = None

    def blank(self) -> Pending:
        """A request of nobody, of the same shapes with zeros."""
        return Pending(
            InferRequest(self.request.model, []), None,
            {name: _zeros(array) for name, array in self.materialized().items()},
            self.rows, self.lane, self.level, self.arrived_ns, self.arrived, 0.0, self.owner,
            is_blank=True,
        )  # fmt: skip

    def materialized(self) -> dict[str, Array]:
        """The input arrays; those of a request that brought bytes only are made now."""
        if self.raw is not None and self.express is not None:
            self.arrays, self.raw = self.express.arrays(self.raw), None
        return self.arrays

    @property
    def elements(self) -> int:
        """How many numbers its inputs have."""
        if self.express is not None:
            return self.express.elements
        return sum([array.size for array in self.arrays.values()])

    @property
    def told(self) -> str:
        """What does not happen if it would wait for ever."""
        return f"model '{self.request.model}' is not asked"

    def needs(self) -> Sequence[Need]:
        """What must happen before it is answered."""
        if self.reply is None:
            return ()
        return self.owner.needs() if self.queued else (AnyOf((self.process,)),)

    @property
    def unwanted(self) -> bool:
        """Whether its model should end it early."""
        return self.reply is None or self.withdrawn

    def cancel(self) -> None:
        """Forget the request; `reply` is not called any more.

        An answer that it has may wait for others', so that its owner has to be told all the same.
        """
        self.owner.cancel(self)

    def withdraw(self) -> None:
        """Ask for an early end; `reply` is still called with what comes."""
        if not self.unwanted:
            self.owner.withdraw(self)


def _zeros(array: Array) -> Array:
    if array.dtype.hasobject:
        return np.full(array.shape, b"", dtype=object)
    return np.zeros(array.shape, array.dtype)

"""Each: a step of an ensemble that runs once for each item of a list.

Every item is a request of its own to the step's model. So items wait in the model's one queue,
leave it in batches with whatever has their shape, be it of this request or another one, need no
padding to the longest of them, and take all cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tuili.errors import InvalidArgument, Overloaded, TuiliError
from tuili.server.execution.pending import ENDED, Reply, Ticket
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.messages import Array, InferResponse

# Of one request under way: more would only fill the model's queue, which may be short.
_MOST_UNDER_WAY: Final = 64


@dataclass(frozen=True, slots=True)
class Items:
    """The arrays of a list, as one value of a dag."""

    arrays: tuple[Array, ...]


Value = Array | Items


@dataclass(frozen=True, slots=True)
class Each:
    """How a step takes items: as `rows` without the batch dim that its model has, or whole."""

    step: str
    rows: bool

    def given(self, values: Mapping[str, Value]) -> list[dict[str, Array]]:
        """What the step is given for each item; what is no list is there for all of them."""
        lists = {name: value for name, value in values.items() if isinstance(value, Items)}
        sizes = {name: len(value.arrays) for name, value in lists.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"'{name}' has {size}" for name, size in sizes.items())
            raise InvalidArgument(
                f"step '{self.step}' takes its lists item by item, but they differ in length: "
                + told
            )
        plain = {name: value for name, value in values.items() if not isinstance(value, Items)}
        return [
            plain
            | {
                name: value.arrays[at][None] if self.rows else value.arrays[at]
                for name, value in lists.items()
            }
            for at in range(next(iter(sizes.values()), 0))
        ]

    def made(
        self, answers: Sequence[Mapping[str, Array]], tensors: Sequence[str]
    ) -> dict[str, Value]:
        """The lists that all items' answers make; a tensor that one of them left out is none."""
        return {
            tensor: Items(tuple([self._item(answer[tensor]) for answer in answers]))
            for tensor in tensors
            if all(tensor in answer for answer in answers)
        }

    def _item(self, array: Array) -> Array:
        return array[0] if self.rows and len(array) == 1 else array


class Calls:
    """The requests of one step for one list; also their ticket."""

    def __init__(
        self,
        count: int,
        ask: Callable[[int, Reply], Ticket],
        done: Callable[[Sequence[InferResponse] | TuiliError], None],
    ) -> None:
        """`ask` sends the request of an item; `done` takes all answers, or the first error."""
        self._count = count
        self._ask = ask
        self._done: Callable[[Sequence[InferResponse] | TuiliError], None] | None = done
        self._waiting = deque(range(count))
        self._most = _MOST_UNDER_WAY
        self._tickets: dict[int, Ticket] = {}
        self._under_way: set[int] = set()
        self._answers: dict[int, InferResponse] = {}
        self._asking = False

    def start(self) -> None:
        """Ask for as many as may be under way, and for the next whenever one is answered."""
        # Who is asked may answer at once, and so come back here: that must not go ever deeper.
        if self._asking:
            return
        self._asking = True
        try:
            while self._done is not None and self._waiting and len(self._under_way) < self._most:
                at = self._waiting.popleft()
                self._under_way.add(at)
                ticket = self._send(at, partial(self._answered, at))
                if at in self._under_way:
                    self._tickets[at] = ticket
        finally:
            self._asking = False
        if self._done is not None and len(self._answers) == self._count:
            done, self._done = self._done, None
            done([self._answers[at] for at in range(self._count)])

    def cancel(self) -> None:
        """Forget them all."""
        self._done = None
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.cancel()

    def _send(self, at: int, reply: Reply) -> Ticket:
        try:
            return self._ask(at, reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request has ended
            reply(of_tree(error, "an ensemble's step could not be asked"))
            return ENDED

    def _answered(self, at: int, answer: InferResponse | TuiliError) -> None:
        self._under_way.discard(at)
        self._tickets.pop(at, None)
        done = self._done
        if done is None:
            return
        if isinstance(answer, Overloaded) and self._under_way:
            # The model's queue is shorter than the list: as many as are in it, from now on.
            self._most = len(self._under_way)
            self._waiting.append(at)
            return
        if isinstance(answer, TuiliError):
            self.cancel()
            done(answer)
            return
        self._answers[at] = answer
        self.start()

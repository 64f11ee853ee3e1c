"""Order: answers leave in the order in which their requests came (`preserve_ordering`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

Answer = TypeVar("Answer")


class Answered(Protocol[Answer]):
    """A request with somebody who waits for its answer."""

    reply: Callable[[Answer], None] | None


class Order(Generic[Answer]):
    """Requests that are under way, first come first, with the answers that wait for others'."""

    def __init__(self) -> None:
        self._line: OrderedDict[Answered[Answer], Callable[[], None] | None] = OrderedDict()

    def enter(self, item: Answered[Answer]) -> None:
        """From now on `item.reply` waits for the answers to all that came before."""
        reply = item.reply
        if reply is None:
            return
        self._line[item] = None

        def ordered(answer: Answer) -> None:
            self._line[item] = partial(reply, answer)
            self._deliver()

        item.reply = ordered

    def leave(self, item: Answered[Answer]) -> bool:
        """Nobody waits for `item` any more; whether its answer was there, which nobody gets now."""
        if self._line.pop(item, None) is not None:
            return True
        self._deliver()
        return False

    def _deliver(self) -> None:
        while self._line:
            item, answer = next(iter(self._line.items()))
            if answer is None:
                return
            del self._line[item]
            answer()

"""Exchange: one request as bytes that are ready to be sent, and the judge of its answers.

Building a request costs more than sending it, so each is built once. An answer that equals the
last good one byte for byte is good; any other is parsed and judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

# Headers (names in lower case) and body; raises Wrong for an answer that says something else.
Judge = Callable[[dict[bytes, bytes], bytes], None]


class Wrong(Exception):
    """An answer that is well formed and not what it should be."""


class Verdict(IntEnum):
    """What came of a request."""

    GOOD = 0
    WRONG = 1  # the worst that can be: an answer with other contents
    REFUSED = 2  # the server said no
    LOST = 3  # the connection ended before the answer


@dataclass(slots=True)
class Exchange:
    """A request: HTTP's whole text, or gRPC's framed message, and who judges its answer.

    `label` groups requests in reports.
    """

    payload: bytes
    judge: Judge
    label: str = ""
    good: bytes = b""  # the last answer that was judged good, as it came
    before: Callable[[], None] | None = None  # called just before it is sent
    repeats: bool = True  # whether an answer equal to the last good one is good


@dataclass(slots=True)
class Log:
    """Every request that ended: when it was due, when it was answered, and what came of it.

    Parallel lists, since there may be a million of them; seconds of `time.perf_counter`.
    """

    due: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, due: float, done: float, verdict: Verdict, label: str) -> None:
        """Note one request."""
        self.due.append(due)
        self.done.append(done)
        self.verdicts.append(verdict)
        self.labels.append(label)


class Finished(Protocol):
    """Told of every request that ended."""

    def __call__(self, exchange: Exchange, due: float, verdict: Verdict, text: str, /) -> None: ...


class Channel(Protocol):
    """A connection that carries up to `streams` requests at a time."""

    streams: int
    broken: bool  # the connection is gone: make another

    @property
    def busy(self) -> int:
        """Requests under way."""
        ...

    def fileno(self) -> int: ...
    @property
    def blocked(self) -> bool:
        """Whether it has bytes that the socket did not take yet."""
        ...

    def start(self, exchange: Exchange, due: float) -> None:
        """Send a request."""
        ...

    def receive(self) -> None:
        """Take what came; ended requests are told to `Finished`."""
        ...

    def resume(self) -> None:
        """Send on: the socket takes bytes again."""
        ...

    def close(self) -> None: ...

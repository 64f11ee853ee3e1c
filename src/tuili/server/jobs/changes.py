"""What happens to a job, as it is written down, and what is found of it after a restart.

Times are seconds since 1970: the clock that two lives of a server share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Bytes: TypeAlias = "bytes | bytearray | memoryview"
End = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: `json_length` is None where all of the body is JSON."""

    model: str
    version: str
    json_length: int | None
    url: str = ""  # where its answer is to be posted


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes out."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    parts: Sequence[Bytes]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job is taken, and about to run."""

    id: str
    key: str
    at: float
    asked: Asked
    body: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """A job that an earlier server left is about to run again."""

    id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is there; `owed` is whether its receiver must still be told."""

    id: str
    state: End
    at: float
    error: str
    answer: Answer | None
    owed: bool


@dataclass(frozen=True, slots=True)
class Told:
    """The receiver has the answer, or was tried often enough."""

    id: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller took the job back."""

    id: str
    at: float


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The answer need not be kept any longer, but for its receiver."""

    id: str


Change: TypeAlias = "Accepted | Begun | Finished | Told | Cancelled | Forgotten"


@dataclass(frozen=True, slots=True)
class Left:
    """A job as an earlier server left it; `starts` is how often it began to run and did not end.

    One that is `gone` is there for its receiver only.
    """

    id: str
    key: str
    asked: Asked
    request_bytes: int
    state: Literal["queued", "done", "failed", "cancelled"]
    starts: int
    finished: float
    error: str
    answer: Answer | None
    owed: bool
    gone: bool

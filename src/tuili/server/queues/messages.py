"""What a message of a queue holds, and what becomes of it.

A request is the body of an infer request over HTTP (JSON, or JSON and binary tensors), with the
model's name, and an id that makes a repeat of it recognisable. An answer has the status that HTTP
would have, and the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from tuili.errors import Cancelled, DeadlineExceeded, InternalError, TuiliError, Unavailable
from tuili.server.http.codec import InferDecoder, Plan
from tuili.server.http.infer_reply import encode_body
from tuili.server.http.limits import HttpLimits
from tuili.server.http.pieces import size_of
from tuili.server.protocol.messages import InferRequest, InferResponse
from tuili.server.protocol.status import status_of

Verdict = Literal["answer", "later", "bury"]
_LIMITS: Final = HttpLimits()
_MOST_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class Request:
    """One message: `json_length` -1 means that all of the body is JSON; `tries` starts at 1."""

    id: str
    model: str
    version: str
    body: bytes
    json_length: int
    tries: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What is written for a request; `json_length` -1: the body is JSON as a whole."""

    id: str
    status: int
    body: bytes
    json_length: int = -1


class Source(Protocol):
    """A queue. `answer` writes the answer and takes the request out, so that neither is lost.

    `open` comes before all else, and again after an error: what is there still is kept. What was
    fetched goes to another consumer after `claim_s`, counted anew from each `extend`. `begun` notes
    that a request is run that may be its server's death, and says how often that was noted before,
    by whomever. `bury` answers and keeps the request elsewhere, for a person to look at.
    """

    name: str
    claim_s: float

    async def open(self) -> None: ...
    async def fetch(self, most: int, timeout_s: float) -> list[tuple[object, Request]]: ...
    async def answer(self, handle: object, answer: Answer) -> None: ...
    async def bury(self, handle: object, request: Request, answer: Answer) -> None: ...
    async def begun(self, handle: object) -> int: ...
    async def extend(self, handles: Sequence[object]) -> None: ...
    async def later(self, handle: object, delay_s: float) -> None: ...
    async def close(self) -> None: ...


def length_of(text: str) -> int:
    """The `json_length` that a message tells; what is no number is as if it were not told."""
    digits = text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS
    return int(text) if digits else -1


def decode(request: Request, decoder: InferDecoder) -> tuple[InferRequest, Plan]:
    """The inference request in a message; raises what HTTP would refuse."""
    length = len(request.body) if request.json_length < 0 else request.json_length
    return decoder.decode(request.body, length, request.model, request.version)


def decoder() -> InferDecoder:
    """A decoder with the limits of HTTP."""
    return InferDecoder(_LIMITS)


def answer_of(id_: str, response: InferResponse, plan: Plan) -> Answer:
    """The answer in the form that the request asked for."""
    text, blobs = encode_body(response, plan.form)
    length = size_of(text) if blobs else -1
    return Answer(id_, 200, b"".join((*text, *blobs)), length)


def error_of(id_: str, error: TuiliError) -> Answer:
    """A refusal."""
    return Answer(id_, status_of(error).http, str(error).encode("utf-8", "replace"))


def verdict(error: TuiliError, tries: int, most_tries: int) -> Verdict:
    """Whether an error is the answer, or a reason to try again later, or to give up.

    What is wrong with the request stays wrong; a full queue, a model that loads and a crash pass.
    """
    passing = isinstance(error, Unavailable | InternalError)
    if not passing or isinstance(error, DeadlineExceeded | Cancelled):
        return "answer"
    return "later" if tries < most_tries else "bury"

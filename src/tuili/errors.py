"""The exception tree of tuili, split by whose fault it is.

TuiliError
├── UserError                 the caller can mend it
│   ├── InvalidModel          a model file or graph that breaks its own rules
│   │   ├── UnsupportedOperator   operators that tuili does not know, all listed at once
│   │   ├── ParseError            text (graph, config, dim) that does not parse; has line and column
│   │   └── NotPolled             a model that cannot be read from its repository
│   ├── InvalidArtifact       a compiled model that is damaged, foreign or too new
│   ├── InvalidArgument       a wrong input: name, dtype, shape, option
│   ├── NotFound              a model, version, file or tensor that is not there
│   ├── AlreadyExists         something that may exist once only
│   ├── TooLarge              more bytes than are taken of one request
│   ├── Unsupported           a valid request for something that is not built or not enabled
│   └── UnknownFailure        a model failed a request, and does not say whose fault it is
├── Unavailable               try again later: queue full, loading, draining, timed out
│   ├── Overloaded            the queue is full or the load is shed
│   ├── DeadlineExceeded      the time given to the request ran out
│   └── Cancelled             the caller took the request back
├── ToolchainError            the C compiler is missing or failed
└── InternalError             our own bug; please report it
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class TuiliError(Exception):
    """Any error that tuili raises on purpose."""


class ModelWarning(UserWarning):
    """A model says something that is hardly meant; it is done as it says."""


class UserError(TuiliError):
    """The caller gave something wrong; the message says what to change."""


class InvalidModel(UserError):
    """A model file or graph that breaks its own rules."""


class UnsupportedOperator(InvalidModel):
    """Operators that tuili does not know; `operators` lists (operator, nodes)."""

    def __init__(self, message: str, operators: Sequence[tuple[str, Sequence[str]]] = ()) -> None:
        super().__init__(message)
        self.operators = tuple(operators)


_NEAR = 80  # characters on either side of a mistake


class ParseError(InvalidModel):
    """Text that does not parse; the message shows the line, or what is near, with a caret."""

    def __init__(self, message: str, *, line: int = 0, column: int = 0, text: str = "") -> None:
        where = f"line {line}, column {column}: " if line else ""
        start = max(column - 1 - _NEAR, 0)
        near, at = text[start : start + 2 * _NEAR], max(column - 1 - start, 0)
        shown = f"\n  {near}\n  {' ' * at}^" if text else ""
        super().__init__(f"{where}{message}{shown}")
        self.line = line
        self.column = column


class NotPolled(InvalidModel):
    """A model that cannot be read from its repository; Triton's clients expect INTERNAL."""


class InvalidArtifact(UserError):
    """A compiled model that is damaged, made for another machine, or too new."""


class InvalidArgument(UserError):
    """A wrong input: name, dtype, shape or option."""


class NotFound(UserError):
    """A model, version, file or tensor that is not there."""


class AlreadyExists(UserError):
    """Something that may exist only once."""


class Conflict(AlreadyExists):
    """A decision that was made without knowing of a later one: look again."""


class TooLarge(UserError):
    """More bytes than the server takes of one request; the message says how many those are."""


class Unsupported(UserError):
    """A valid request for something that is not built or not enabled."""


class UnknownFailure(UserError):
    """A model failed a request, and does not say whose fault it is."""


class Unavailable(TuiliError):
    """Not now: the queue is full, the model is loading or draining, or time ran out."""


class Overloaded(Unavailable):
    """The queue is full, or the server sheds load; a try after `retry_after_s` may pass."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Restricted(Unavailable):
    """The client may not use this part of the interface."""


class DeadlineExceeded(Unavailable):
    """The time that was given to the request ran out before its answer."""


class Cancelled(Unavailable):
    """The caller took the request back."""


class ToolchainError(TuiliError):
    """The C compiler is missing, or refused what we generated."""


class InternalError(TuiliError):
    """A bug in tuili; the message says what to send us."""


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word nearest to `word`, else an empty string."""
    found = get_close_matches(word, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


# What helps against an error of the system.
_REMEDIES = {
    errno.EACCES: "change who may, or name another place",
    errno.EDQUOT: "free some, or name another place",
    errno.EMFILE: "raise the limit with `ulimit -n`",
    errno.ENOSPC: "free some, or name another place",
    errno.EPERM: "change who may, or name another place",
    errno.EROFS: "name another place",
}


def in_words(error: OSError) -> str:
    """An error of the system without its number, and with what helps where that is known."""
    what = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{what}: {remedy}" if remedy else what

"""One error of the tree to one HTTP and one gRPC status: the table both transports share.

The codes are Triton's (`docs/protocol/README.md`, "Mapping Triton Server Error Codes to HTTP
Status Codes"); gRPC codes are plain integers so that this layer needs no gRPC.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from tuili.errors import (
    AlreadyExists,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    NotFound,
    NotPolled,
    Overloaded,
    Restricted,
    TooLarge,
    ToolchainError,
    TuiliError,
    Unavailable,
    UnknownFailure,
    Unsupported,
    UserError,
)

_MOST_PUSHBACK_MS: Final = 3_600_000


class Status(NamedTuple):
    """The status of an error on each transport."""

    http: int
    grpc: int


class Told(TuiliError):
    """An error with a gRPC status that another process chose."""

    def __init__(self, text: str, grpc: int) -> None:
        super().__init__(text)
        self.status = Status(500, grpc)


STATUS: dict[type[TuiliError], Status] = {
    NotFound: Status(404, 5),  # NOT_FOUND
    AlreadyExists: Status(400, 6),  # ALREADY_EXISTS
    Conflict: Status(409, 10),  # ABORTED
    Unsupported: Status(501, 12),  # UNIMPLEMENTED
    TooLarge: Status(413, 8),  # RESOURCE_EXHAUSTED
    InvalidArgument: Status(400, 3),  # INVALID_ARGUMENT
    UnknownFailure: Status(400, 2),  # UNKNOWN
    NotPolled: Status(500, 13),  # INTERNAL, as in Triton
    UserError: Status(400, 3),  # INVALID_ARGUMENT
    Cancelled: Status(400, 1),  # CANCELLED
    Restricted: Status(403, 14),  # UNAVAILABLE, as Triton
    DeadlineExceeded: Status(503, 14),  # UNAVAILABLE, as Triton: "Request timeout expired"
    Overloaded: Status(503, 14),  # UNAVAILABLE
    Unavailable: Status(503, 14),  # UNAVAILABLE
    ToolchainError: Status(500, 13),  # INTERNAL
    InternalError: Status(500, 13),  # INTERNAL
    TuiliError: Status(500, 13),  # INTERNAL
}
_INTERNAL = Status(500, 13)


def status_of(error: BaseException) -> Status:
    """The status of the nearest class in the error's ancestry; anything foreign is our own bug."""
    if isinstance(error, Told):
        return error.status
    for cls in type(error).__mro__:
        found = STATUS.get(cls)
        if found is not None:
            return found
    return _INTERNAL


def pushback_ms(error: TuiliError) -> int | None:
    """After how many ms a try may pass, of what was refused for want of room; None of all else."""
    if not isinstance(error, Overloaded):
        return None
    return min(max(ceil(error.retry_after_s * 1e3), 1), _MOST_PUSHBACK_MS)

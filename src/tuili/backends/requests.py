"""What a request says beside its tensors, and its answer: for back ends that look at each request.

Most back ends see a batch as one joined run. A Triton Python model sees the requests of a batch:
each has an id, parameters and a sequence, and each gets its own answer or error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, Protocol, cast

import msgspec

from tuili.errors import (
    AlreadyExists,
    Cancelled,
    InternalError,
    InvalidArgument,
    NotFound,
    TuiliError,
    Unavailable,
    UnknownFailure,
    Unsupported,
)
from tuili.tensors import Array

Parameters = dict[str, Any]

# The errors that cross between a server and a model host, by name.
KINDS: dict[str, type[TuiliError]] = {
    kind.__name__: kind
    for kind in (
        AlreadyExists, Cancelled, InternalError, InvalidArgument, NotFound, Unavailable,
        UnknownFailure, Unsupported,
    )
}  # fmt: skip


def kind_of(error: BaseException) -> str:
    """The name of the nearest kind in an error's ancestry."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((name for name in names if name in KINDS), "InternalError")


class Told(msgspec.Struct, array_like=True, gc=False):
    """What one request of a batch says: its rows of the joined tensors, id, parameters."""

    rows: int = 1
    id: str = ""
    sequence: int | str = 0
    flags: int = 0  # 1: the sequence starts, 2: it ends
    timeout_us: int = 0
    parameters: Parameters = {}
    outputs: list[str] = []  # the wanted ones; none means all
    # Of ragged inputs, which are joined in one dim: the shapes as the request has them.
    shapes: dict[str, tuple[int, ...]] = {}


class Answered(msgspec.Struct):
    """The answer to one request: outputs, or an error."""

    outputs: Mapping[str, Array] = {}
    parameters: Parameters = {}
    error: TuiliError | None = None


# Takes an answer, and whether it is the last one; None: there was no answer left to be the last.
Send = Callable[[Answered | None, bool], None]
SendTo = Callable[[int, Answered | None, bool], None]


class ByRequest(Protocol):
    """An executable that wants to see the requests of a batch.

    `config_json` is the configuration that the model completed, or "" where it left it alone.
    """

    config_json: str

    def run_requests(
        self, inputs: dict[str, Array], told: Sequence[Told], cancelled: Callable[[int], bool]
    ) -> list[Answered]:
        """The answers of a batch whose tensors are joined; `cancelled(i)`: nobody waits for it."""
        ...

    def begin_streams(
        self,
        inputs: dict[str, Array],
        told: Sequence[Told],
        cancelled: Callable[[int], bool],
        send: SendTo,
    ) -> None:
        """Take a batch of a model that answers each request any number of times.

        `send` gets the answers of request `at` from any thread, before or after this returns.
        """
        ...


def divided(inputs: Mapping[str, Array], told: Sequence[Told]) -> Iterator[dict[str, Array]]:
    """The inputs of each request of a batch whose tensors are joined."""
    starts = dict.fromkeys(inputs, 0)
    for each in told:
        mine: dict[str, Array] = {}
        for name, array in inputs.items():
            shape = each.shapes.get(name)
            count = each.rows if shape is None else prod(shape)
            start = starts[name]
            part = array if len(told) == 1 else array[start : start + count]
            mine[name] = part if shape is None else part.reshape(shape)
            starts[name] = start + count
        yield mine


def by_request(model: object) -> ByRequest | None:
    """`model`, if it wants to see requests."""
    return cast("ByRequest", model) if hasattr(model, "run_requests") else None

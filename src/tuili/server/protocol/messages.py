"""What crosses the seam between a transport and the data plane: one request, one response.

Transports build `InferRequest` and are called back with `InferResponse` or an error. They are
`msgspec` structs because these objects are made for every request: construction costs 0.1 us.
Names follow the KServe v2 protocol; datatypes are its names ("FP32", "BYTES").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from tuili.errors import TuiliError
from tuili.server.protocol.kept import Kept

Parameters = dict[str, bool | int | float | str]
Array = np.ndarray[Any, Any]
Reply = Callable[["InferResponse | TuiliError"], None]
StreamReply = Callable[["InferResponse | TuiliError | None", bool], None]

# The response parameter that names the variant of a roll-out.
VARIANT = "tuili_variant"
SHARED_MEMORY_KEYS = (
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
)


class InputTensor(msgspec.Struct, gc=False):
    """One input: an array, or None when `parameters` name a shared-memory region to read.

    Raw data of a wrong size has no array, but its size in `misfit_bytes`: the model's signature
    tells what is wrong with it.

    The array may be any C-contiguous view of the receive buffer: the data plane drops its
    references before it calls `reply`. BYTES tensors are object arrays of `bytes`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array | None
    parameters: Parameters | None = None
    misfit_bytes: int = -1


class RequestedOutput(msgspec.Struct, gc=False):
    """An output the client asked for; `parameters`: `classification`, shared-memory keys."""

    name: str
    parameters: Parameters | None = None


class Origin(Protocol):
    """Where a request came from, asked only while a roll-out is under way; "" for what is not."""

    def header(self, name: str) -> str:
        """A header or metadata field by its lower-case name."""
        ...

    def headers(self) -> dict[str, str]:
        """All of them, by their lower-case names."""
        ...

    def address(self) -> str:
        """The peer's address."""
        ...

    @property
    def protocol(self) -> Literal["HTTP", "GRPC"]:
        """The transport."""
        ...

    @property
    def since_ns(self) -> int:
        """When the request began to come, where that took more than one read; 0 otherwise."""
        ...


class Traced(Protocol):
    """Where it is noted what becomes of a request; only few requests have one."""

    def ran(self, queued_ns: int, started_ns: int, joined_ns: int, done_ns: int) -> None:
        """A batch with the request ran: when it was queued, taken, joined, done."""
        ...

    def child(self, request: InferRequest) -> Traced:
        """The trace of a request that this one is made of."""
        ...

    def watching(self, reply: Reply) -> Reply:
        """What to give the answer to, so that it is noted."""
        ...

    def watching_many(self, reply: StreamReply) -> StreamReply:
        """The same for any number of answers."""
        ...


class Shared(Protocol):
    """The clients' memory that a request holds; only few requests hold any."""

    def write(self, name: str, parameters: Parameters, array: Array, datatype: str) -> None:
        """Put an output where the request wants it; InvalidArgument where it does not fit."""
        ...

    def require_whole(self) -> None:
        """InvalidArgument where memory was taken away while the request used it."""
        ...


class Calling(Protocol):
    """The call of a model that a request comes of; it wants to know where that waits."""

    def enter(self, item: Any) -> None: ...


class InferRequest(msgspec.Struct, gc=False):
    """One inference request, already parsed, not yet checked against the model.

    `version` is "" for "the newest ready one". `deadline` is a `time.monotonic()` moment or None.
    `parameters` hold `sequence_id`, `priority`, `timeout` and whatever else the client sent;
    transport-level keys (`binary_data_output`) stay with the transport.
    `kept` is there for a step of a pipeline: what all steps of that request keep to.
    `degraded` marks a request that a larger model had no time for.
    `shared` is there while its inputs or outputs lie in shared memory of the client.
    `call` is the call of another model that it comes of.
    """

    model: str
    inputs: list[InputTensor]
    version: str = ""
    id: str = ""
    outputs: list[RequestedOutput] | None = None
    parameters: Parameters | None = None
    deadline: float | None = None
    origin: Origin | None = None
    kept: Kept | None = None
    uncached: bool = False
    degraded: bool = False
    trace: Traced | None = None
    shared: Shared | None = None
    call: Calling | None = None


def is_part(request: InferRequest) -> bool:
    """Whether a request comes of another one, which is under way until this is answered."""
    return request.kept is not None or request.call is not None


def sequence_of(request: InferRequest) -> int | str:
    """The sequence that a request is part of; 0 for none."""
    parameters = request.parameters
    found = parameters.get("sequence_id", 0) if parameters else 0
    # What it may be its model tells.
    return found if isinstance(found, int | str) else 0


def starts_sequence(request: InferRequest) -> bool:
    """Whether a sequence begins with a request."""
    return bool((request.parameters or {}).get("sequence_start", False))


def ends_sequence(request: InferRequest) -> bool:
    """Whether a sequence ends with a request."""
    return bool((request.parameters or {}).get("sequence_end", False))


class OutputTensor(msgspec.Struct, gc=False):
    """One output: a C-contiguous array, or None when it went to shared memory (`parameters`)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array | None
    parameters: Parameters | None = None


class InferResponse(msgspec.Struct, gc=False):
    """The answer to one request: outputs in the order asked for, or in the model's order."""

    model: str
    version: str
    outputs: list[OutputTensor]
    id: str = ""
    parameters: Parameters | None = None

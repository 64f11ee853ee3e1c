"""What all requests to an ensemble share: the request of a step, and what a step's answer made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from tuili.errors import InternalError, InvalidArgument, TuiliError
from tuili.server.execution.pending import Reply, StreamReply, Ticket
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    InputTensor,
    OutputTensor,
    Parameters,
    RequestedOutput,
)
from tuili.server.protocol.signature import prefix
from tuili.server.scheduling.conditions import Scalar
from tuili.server.scheduling.dag import Dag
from tuili.server.serving.ensemble_fits import Fits
from tuili.server.telemetry.statistics import Statistics

_log = logging.getLogger("tuili.server")

# What an answer tells of its request, as in Triton: no other parameters get through.
_TOLD: Final[Parameters] = {"sequence_id": 0, "sequence_start": False, "sequence_end": False}


class Run(Protocol):
    """A request that is on its way."""

    def cancel(self) -> None: ...


class Parts(Protocol):
    """What a request needs of the ensemble that it is in."""

    dag: Dag
    types: dict[str, str]
    version: str
    fits: Fits
    statistics: Statistics
    # The steps that answer any number of times.
    many: frozenset[int]

    def call(self, at: int, request: InferRequest, reply: Reply) -> Ticket: ...
    def call_many(self, at: int, request: InferRequest, reply: StreamReply) -> Ticket: ...
    def respond(
        self, request: InferRequest, array_of: Callable[[str], Array], absent: Callable[[str], bool]
    ) -> list[OutputTensor]: ...
    def forget(self, run: Run) -> None: ...


def wanted_of(parts: Parts, request: InferRequest) -> Sequence[str]:
    """The outputs of the ensemble that a request asks for."""
    return [output.name for output in request.outputs or ()] or parts.dag.outputs


def record_answered(parts: Parts, rows: int, age_ns: int) -> None:
    """A request of so many rows was answered after so long."""
    statistics = parts.statistics
    statistics.record_batch(rows, 1, (0, age_ns, 0), "alone")
    statistics.record_success(0, age_ns)
    statistics.last_inference_ms = time.time_ns() // 1_000_000


def step_request(
    parts: Parts,
    at: int,
    parent: InferRequest,
    arrays: Mapping[str, Array],
    variants: dict[str, str],
) -> InferRequest:
    """The request of a step; `arrays` are those of its inputs that are there, by their tensors."""
    step = parts.dag.steps[at]
    inputs = [
        InputTensor(name, parts.types[tensor], array.shape, array)
        for name, tensor in step.needs.items()
        if tensor in arrays  # Its model can do without the others.
        for array in (parts.fits.into(at, name, arrays[tensor]),)
    ]
    request = InferRequest(
        step.model,
        inputs,
        step.version,
        parent.id,
        [RequestedOutput(name) for name in step.makes],
        parent.parameters,
        parent.deadline,
        parent.origin,
        variants,
    )
    if parent.trace is not None:
        request.trace = parent.trace.child(request)
    return request


def made_by(dag: Dag, at: int, answer: InferResponse) -> tuple[dict[str, Array], list[str]]:
    """The tensors that a step's answer brought, and those that it left out though they are used."""
    makes = dag.steps[at].makes
    arrays: dict[str, Array] = {}
    for output in answer.outputs:
        if output.data is None:
            raise InternalError(f"step '{answer.model}' gave no data for '{output.name}'")
        arrays[makes[output.name]] = output.data
    left_out = [
        tensor
        for tensor in makes.values()
        if tensor not in arrays and (dag.users.get(tensor) or tensor in dag.outputs)
    ]
    return arrays, left_out


class LeftOut:
    """The tensors that models left out of their answers to one request, though they are used."""

    def __init__(self) -> None:
        self._by: dict[str, str] = {}

    def note(self, tensors: Sequence[str], model: str) -> None:
        """A model's answer came without these."""
        for tensor in tensors:
            self._by[tensor] = model

    def check(self, parts: Parts, request: InferRequest, missing: Sequence[str]) -> None:
        """Outputs that their own model left out are left out of the answer too, as in Triton.

        Others are missing because a step could not run without what was left out: InternalError.
        """
        for name in missing:
            if name in self._by:
                _log.debug("Composing models did not output tensor %s", name)
        if self._by and not self._by.keys() >= set(missing):
            tensor, model = next(iter(self._by.items()))
            raise InternalError(
                f"{prefix(request)}in ensemble '{parts.dag.name}', unexpected deadlock, at "
                f"least one output is not set while no more ensemble steps can be made: "
                f"'{model}' left '{tensor}' out"
            )

    def explains(self, missing: Sequence[str]) -> bool:
        """Whether all that is missing was left out."""
        return self._by.keys() >= set(missing)


def response(parts: Parts, request: InferRequest, outputs: list[OutputTensor]) -> InferResponse:
    """An answer of the ensemble."""
    given = request.parameters or {}
    told = {name: given.get(name, absent) for name, absent in _TOLD.items()}
    return InferResponse(request.model, parts.version, outputs, request.id, told)


def scalar(parts: Parts, request: InferRequest, tensor: str, array: Array) -> Scalar:
    """What a condition compares: the only element of a tensor."""
    if array.size != 1:
        raise InvalidArgument(
            f"{prefix(request)}ensemble '{parts.dag.name}': a condition needs "
            f"one element, but '{tensor}' has shape {list(array.shape)}"
        )
    value = array.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def require_answer(parts: Parts, answer: InferResponse | TuiliError) -> InferResponse:
    """The answer of a step, or its error raised."""
    if isinstance(answer, TuiliError):
        parts.statistics.record_step_failure()
        raise answer
    return answer

"""What all requests to an ensemble share: the request of a step, and what a step's answer made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from tuili.backends.items import SHAPES, packed, unpacked
from tuili.errors import InternalError, InvalidArgument, TuiliError
from tuili.server.execution.pending import Reply, StreamReply, Ticket
from tuili.server.protocol.datatypes import NUMPY
from tuili.server.protocol.kept import Kept
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
from tuili.server.serving.ensemble_cache import EnsembleCache
from tuili.server.serving.ensemble_each import Calls, Each, Items, Value
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
    # The steps that answer any number of times, and those that run once for each item of a list.
    many: frozenset[int]
    each: Mapping[int, Each]
    # The tensors that are lists.
    lists: frozenset[str]
    # Where whole answers are kept.
    cache: EnsembleCache | None

    def call(self, at: int, request: InferRequest, reply: Reply) -> Ticket: ...
    def call_many(self, at: int, request: InferRequest, reply: StreamReply) -> Ticket: ...
    def respond(
        self, request: InferRequest, value_of: Callable[[str], Value], absent: Callable[[str], bool]
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
    values: Mapping[str, Value],
    kept: Kept,
) -> InferRequest:
    """The request of a step; `values` are those of its inputs that are there, by their tensors."""
    step = parts.dag.steps[at]
    inputs: list[InputTensor] = []
    for name, tensor in step.needs.items():
        value = values.get(tensor)
        if isinstance(value, Items):
            inputs += _crossing(name, parts.types[tensor], value)
        elif value is not None:  # Its model can do without the others.
            array = parts.fits.into(at, name, value)
            inputs.append(InputTensor(name, parts.types[tensor], array.shape, array))
    request = InferRequest(
        step.model,
        inputs,
        step.version,
        parent.id,
        [RequestedOutput(name) for name in _asked(parts, at)],
        parent.parameters,
        parent.deadline,
        parent.origin,
        kept,
        call=parent.call,
    )
    if parent.trace is not None:
        request.trace = parent.trace.child(request)
    return request


def _crossing(name: str, datatype: str, items: Items) -> list[InputTensor]:
    """A list as it goes to a Python step (backends/items.py)."""
    arrays = items.arrays
    flat, shapes = packed(arrays, NUMPY[datatype], arrays[0].ndim if arrays else 0)
    return [
        InputTensor(name, datatype, flat.shape, flat),
        InputTensor(name + SHAPES, "INT64", shapes.shape, shapes),
    ]


def _asked(parts: Parts, at: int) -> Iterator[str]:
    """The outputs that a step is asked for."""
    for name, tensor in parts.dag.steps[at].makes.items():
        yield name
        if tensor in parts.lists and at not in parts.each:
            yield name + SHAPES


def call_step(
    parts: Parts,
    at: int,
    parent: InferRequest,
    values: Mapping[str, Value],
    kept: Kept,
    done: Callable[[Sequence[InferResponse] | TuiliError], None],
) -> Ticket:
    """Ask a step that answers once, or once for each item; `done` takes all that it says."""
    each = parts.each.get(at)
    if each is None:
        request = step_request(parts, at, parent, values, kept)
        return parts.call(at, request, lambda answer: done(_alone(answer)))
    given = each.given(values)
    calls = Calls(
        len(given),
        lambda item, reply: parts.call(
            at, step_request(parts, at, parent, given[item], kept), reply
        ),
        done,
    )
    calls.start()
    return calls


def _alone(answer: InferResponse | TuiliError) -> Sequence[InferResponse] | TuiliError:
    return answer if isinstance(answer, TuiliError) else (answer,)


def made_by(
    parts: Parts, at: int, answers: Sequence[InferResponse] | TuiliError
) -> tuple[dict[str, Value], list[str]]:
    """What a step's answers brought, and the tensors that they left out though they are used."""
    if isinstance(answers, TuiliError):
        parts.statistics.record_step_failure()
        raise answers
    dag, each = parts.dag, parts.each.get(at)
    makes = dag.steps[at].makes
    brought = [_arrays_of(answer) for answer in answers]
    found: dict[str, Value] = {}
    if each is None:
        (arrays,) = brought
        for name, tensor in makes.items():
            if name in arrays:
                found[tensor] = arrays[name]
            if name in arrays and tensor in parts.lists:
                found[tensor] = Items(tuple(unpacked(arrays[name], arrays[name + SHAPES])))
    else:
        lists = each.made(brought, list(makes))
        found = {makes[name]: items for name, items in lists.items()}
    left_out = [
        tensor
        for tensor in makes.values()
        if tensor not in found and (dag.users.get(tensor) or tensor in dag.outputs)
    ]
    return found, left_out


def _arrays_of(answer: InferResponse) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for output in answer.outputs:
        if output.data is None:
            raise InternalError(f"step '{answer.model}' gave no data for '{output.name}'")
        arrays[output.name] = output.data
    return arrays


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


def scalar(parts: Parts, request: InferRequest, tensor: str, array: Value) -> Scalar:
    """What a condition compares: the only element of a tensor."""
    assert not isinstance(array, Items)  # refused where a pipeline is planned
    if array.size != 1:
        raise InvalidArgument(
            f"{prefix(request)}ensemble '{parts.dag.name}': a condition needs "
            f"one element, but '{tensor}' has shape {list(array.shape)}"
        )
    value = array.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value

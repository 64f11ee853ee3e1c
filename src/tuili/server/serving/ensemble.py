"""Ensemble: a model made of other models; its steps are requests to them, arrays uncopied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from tuili.errors import (
    InternalError,
    InvalidArgument,
    InvalidModel,
    TuiliError,
    Unavailable,
    nearest,
)
from tuili.server.execution.pending import Reply, Ticket
from tuili.server.memory.shared_memory import Regions
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    InputTensor,
    OutputTensor,
    Parameters,
    RequestedOutput,
)
from tuili.server.protocol.signature import Signature, TensorRule, prefix
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.conditions import Scalar
from tuili.server.scheduling.dag import Dag, Step
from tuili.server.scheduling.flow import Flow
from tuili.server.serving.responding import finish_output
from tuili.server.serving.servable import Servable
from tuili.server.telemetry.statistics import Statistics

Submit = Callable[[InferRequest, Reply], Ticket]
# What an answer tells of its request, as in Triton: no other parameters get through.
_TOLD: Final[Parameters] = {"sequence_id": 0, "sequence_start": False, "sequence_end": False}


def dag_of(config: ModelConfig) -> Dag:
    """The checked steps of an ensemble's configuration."""
    raw: dict[str, Any] = config.raw.get("ensemble_scheduling", {})
    steps = [
        Step(
            step.get("model_name", ""),
            "" if int(step.get("model_version", -1)) < 1 else str(step["model_version"]),
            step.get("input_map", {}),
            step.get("output_map", {}),
        )
        for step in raw.get("step", ())
    ]
    if not steps:
        raise InvalidModel(f"ensemble '{config.name}' has no steps in ensemble_scheduling")
    if not config.inputs or not config.outputs:
        raise InvalidModel(f"ensemble '{config.name}' must declare its inputs and outputs")
    return Dag(
        config.name, [t.name for t in config.inputs], [t.name for t in config.outputs], steps
    )


def check_types(dag: Dag, signature: Signature, signatures: Sequence[Signature]) -> dict[str, str]:
    """The datatype of every tensor; `signatures` are those of the steps.

    InvalidModel where an edge joins tensors that do not exist or differ in datatype.
    """
    types = {name: rule.datatype for name, rule in signature.inputs.items()}
    for step, model in zip(dag.steps, signatures, strict=True):
        for name, tensor in step.makes.items():
            types[tensor] = _rule(dag, step, model.outputs, name).datatype
    for step, model in zip(dag.steps, signatures, strict=True):
        for name, tensor in step.needs.items():
            wanted = _rule(dag, step, model.inputs, name).datatype
            if types[tensor] != wanted:
                raise InvalidModel(
                    f"ensemble '{dag.name}': tensor '{tensor}' is {types[tensor]}, but input "
                    f"'{name}' of model '{step.model}' expects {wanted}"
                )
    for name, rule in signature.outputs.items():
        if types[name] != rule.datatype:
            raise InvalidModel(
                f"ensemble '{dag.name}': output '{name}' is declared {rule.datatype}, but its step "
                f"makes {types[name]}"
            )
    return types


def note_optional(dag: Dag, signatures: Sequence[Signature]) -> None:
    """Which tensors each step can do without."""
    for at, (step, model) in enumerate(zip(dag.steps, signatures, strict=True)):
        found = (tensor for name, tensor in step.needs.items() if model.inputs[name].optional)
        dag.optional[at] = frozenset(found)


def inherit_labels(dag: Dag, signature: Signature, signatures: Sequence[Signature]) -> None:
    """Outputs of an ensemble have the labels of the model that makes them."""
    for name, rule in signature.outputs.items():
        at = dag.makers[name]
        made = next(key for key, tensor in dag.steps[at].makes.items() if tensor == name)
        rule.labels = rule.labels or signatures[at].outputs[made].labels


def _rule(dag: Dag, step: Step, rules: dict[str, TensorRule], name: str) -> TensorRule:
    if name not in rules:
        raise InvalidModel(
            f"ensemble '{dag.name}': model '{step.model}' has no tensor '{name}'."
            + nearest(name, rules)
        )
    return rules[name]


class Ensemble:
    """A running ensemble version; to the data plane it is as any other model."""

    decoupled = False

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        dag: Dag,
        signature: Signature,
        version: str,
        *,
        types: dict[str, str],
        config: dict[str, Any],
        submit: Submit,
        broken: Callable[[], str],
        statistics: Statistics,
        regions: Regions,
        most_inflight: int = 0,
        own: Mapping[int, Servable] | None = None,
    ) -> None:
        self.signature = signature
        self.version = version
        self.config = config
        self.statistics = statistics
        self.dag = dag
        self.types = types
        self._submit = submit
        self._why_broken = broken
        self._regions = regions
        self._most_inflight = most_inflight
        # Steps that are nobody else's: they live and end with the ensemble.
        self._own = own or {}
        self.hosts = [host for servable in self._own.values() for host in servable.hosts]
        self._runs: set[_Run] = set()
        self._draining = False
        self._idle: asyncio.Future[None] | None = None

    @property
    def broken(self) -> str:
        """Why a step's model cannot answer, or ""."""
        return next((own.broken for own in self._own.values() if own.broken), self._why_broken())

    def submit(self, request: InferRequest, reply: Reply) -> _Run:
        """Start a request's way through the steps."""
        if self._draining:
            raise Unavailable(
                f"'{self.signature.model}' version {self.version} is not at ready state"
            )
        if self._most_inflight and len(self._runs) >= self._most_inflight:
            self.statistics.record_failure("REJECTED", 0)
            raise Unavailable(prefix(request) + "Exceeds maximum number of requests in flight")
        checked = self.signature.check(request)
        run = _Run(self, request, reply, checked.rows)
        self._runs.add(run)
        run.start(checked.arrays)
        return run

    def call(self, at: int, request: InferRequest, reply: Reply) -> Ticket:
        """Send a step's request to its model."""
        own = self._own.get(at)
        return self._submit(request, reply) if own is None else own.submit(request, reply)

    def respond(
        self, request: InferRequest, array_of: Callable[[str], Array]
    ) -> list[OutputTensor]:
        """The outputs that the request asked for."""
        wanted = request.outputs or [RequestedOutput(name) for name in self.dag.outputs]
        return [
            finish_output(self.signature, output, array_of(output.name), self._regions)
            for output in wanted
        ]

    def forget(self, run: _Run) -> None:
        """A request has ended."""
        self._runs.discard(run)
        if not self._runs and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def pending(self) -> int:
        """How many requests are on their way."""
        return len(self._runs)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new requests and wait for those here; false when time ran out first."""
        self._draining = True
        if self._runs and self._idle is None:
            self._idle = asyncio.get_running_loop().create_future()
        if not self._runs or self._idle is None:
            return True
        try:
            await asyncio.wait_for(asyncio.shield(self._idle), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Release the steps that are its own; its models are others'."""
        await self.drain()
        await asyncio.gather(*(own.close() for own in self._own.values()))


class _Run:
    """One request in an ensemble; also its ticket."""

    def __init__(self, ensemble: Ensemble, request: InferRequest, reply: Reply, rows: int) -> None:
        self._ensemble = ensemble
        self._request = request
        self._reply: Reply | None = reply
        self._rows = rows
        self._started_ns = time.monotonic_ns()
        wanted = [output.name for output in request.outputs or ()] or ensemble.dag.outputs
        self._flow = Flow(ensemble.dag, wanted, self._value_of)
        self._tensors: dict[str, Array] = {}
        self._tickets: dict[int, Ticket] = {}
        self._left_out = ""
        # What is chosen for one step holds for all steps of this request.
        self._variants: dict[str, str] = {} if request.variants is None else request.variants

    def start(self, arrays: dict[str, Array]) -> None:
        """The inputs are there: go."""
        self._arrive(arrays, [name for name in self._ensemble.dag.inputs if name not in arrays])

    def cancel(self) -> None:
        """Forget the request and the steps that it has under way."""
        if self._reply is None:
            return
        self._ensemble.statistics.record_failure("CANCELED", self._age_ns())
        self._end()

    def _arrive(self, arrays: dict[str, Array], absent: Sequence[str] = ()) -> None:
        self._tensors.update(arrays)
        try:
            ready = self._flow.arrived(arrays, absent)
            if self._flow.done():
                self._answer()
                return
            for at in ready:
                self._call(at)
                if self._reply is None:
                    return
        except TuiliError as error:
            self._fail(error)

    def _array_of(self, tensor: str) -> Array:
        return self._tensors[self._flow.source_of(tensor)]

    def _value_of(self, tensor: str) -> Scalar:
        """What a condition compares: the only element of a tensor."""
        array = self._array_of(tensor)
        if array.size != 1:
            raise InvalidArgument(
                f"{prefix(self._request)}ensemble '{self._ensemble.dag.name}': a condition needs "
                f"one element, but '{tensor}' has shape {list(array.shape)}"
            )
        value = array.item()
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def _call(self, at: int) -> None:
        step = self._ensemble.dag.steps[at]
        inputs: list[InputTensor] = []
        for name, tensor in step.needs.items():
            if self._flow.is_absent(tensor):
                continue  # Its model can do without.
            array = self._array_of(tensor)
            inputs.append(InputTensor(name, self._ensemble.types[tensor], array.shape, array))
        for tensor in self._flow.free(at):
            self._tensors.pop(tensor, None)
        parent = self._request
        request = InferRequest(
            step.model,
            inputs,
            step.version,
            parent.id,
            [RequestedOutput(name) for name in step.makes],
            parent.parameters,
            parent.deadline,
            parent.origin,
            self._variants,
        )
        ticket = self._ensemble.call(at, request, partial(self._step_done, at))
        if self._reply is not None:
            self._tickets[at] = ticket

    def _step_done(self, at: int, answer: InferResponse | TuiliError) -> None:
        self._tickets.pop(at, None)
        if self._reply is None:
            return
        if isinstance(answer, TuiliError):
            self._fail(answer)
            return
        dag = self._ensemble.dag
        makes = dag.steps[at].makes
        arrays: dict[str, Array] = {}
        for output in answer.outputs:
            if output.data is None:
                self._fail(InternalError(f"step '{answer.model}' gave no data for '{output.name}'"))
                return
            arrays[makes[output.name]] = output.data
        left_out = [
            tensor
            for tensor in makes.values()
            if tensor not in arrays and (dag.users.get(tensor) or tensor in dag.outputs)
        ]
        if left_out and not self._left_out:
            self._left_out = f"'{answer.model}' left '{left_out[0]}' out"
        self._arrive(arrays, left_out)

    def _answer(self) -> None:
        ensemble, request, reply = self._ensemble, self._request, self._reply
        missing = self._flow.missing()
        if missing and self._left_out:
            raise InternalError(
                f"{prefix(request)}in ensemble '{ensemble.dag.name}', unexpected deadlock, at "
                f"least one output is not set while no more ensemble steps can be made: "
                f"{self._left_out}"
            )
        if missing:
            raise InvalidModel(
                f"ensemble '{ensemble.dag.name}': every step that makes output '{missing[0]}' was "
                "skipped; give it another source that is always there"
            )
        outputs = ensemble.respond(request, self._array_of)
        statistics = ensemble.statistics
        age_ns = self._age_ns()
        statistics.record_batch(self._rows, 1, (0, age_ns, 0), "alone")
        statistics.record_success(0, age_ns)
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        self._end()
        assert reply is not None
        given = request.parameters or {}
        told = {name: given.get(name, absent) for name, absent in _TOLD.items()}
        reply(InferResponse(request.model, ensemble.version, outputs, request.id, told))

    def _fail(self, error: TuiliError) -> None:
        reply = self._reply
        self._ensemble.statistics.record_failure("OTHER", self._age_ns())
        self._end()
        if reply is not None:
            reply(error)

    def _end(self) -> None:
        self._reply = None
        for ticket in self._tickets.values():
            ticket.cancel()
        self._tickets.clear()
        self._tensors.clear()
        self._ensemble.forget(self)

    def _age_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns

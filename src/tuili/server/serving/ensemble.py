"""Ensemble: a model made of other models; its steps are requests to them, arrays uncopied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from tuili.errors import (
    DeadlineExceeded,
    InvalidModel,
    Overloaded,
    TuiliError,
    Unavailable,
    nearest,
)
from tuili.server.execution.pending import ENDED, Reply, StreamReply, Ticket
from tuili.server.memory.sigbus import GUARD
from tuili.server.protocol.messages import (
    Array,
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
    ends_sequence,
    is_part,
    sequence_of,
)
from tuili.server.protocol.signature import Signature, TensorRule, prefix
from tuili.server.repository.config import ModelConfig
from tuili.server.scheduling.dag import Dag, Step
from tuili.server.scheduling.remembered import Remembered
from tuili.server.serving.answering import hand_over
from tuili.server.serving.ensemble_cache import EnsembleCache
from tuili.server.serving.ensemble_each import Each, Items, Value
from tuili.server.serving.ensemble_fits import NO_FITS, Fits
from tuili.server.serving.ensemble_once import OnceRun
from tuili.server.serving.ensemble_steps import Run, response
from tuili.server.serving.ensemble_stream import StreamRun
from tuili.server.serving.idle import Idle
from tuili.server.serving.responding import as_declared, finish_output
from tuili.server.serving.servable import Servable
from tuili.server.serving.step_limits import StepLimit, Turn
from tuili.server.telemetry.statistics import Statistics

Submit = Callable[[InferRequest, Reply], Ticket]
SubmitStream = Callable[[InferRequest, StreamReply], Ticket]
Way = TypeVar("Way", OnceRun, StreamRun)
# As long as a model may take. Its steps may wait for who has asked for the load: one of them.
_REHEARSAL_S: Final = 1200.0


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

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        dag: Dag,
        signature: Signature,
        version: str,
        *,
        types: dict[str, str],
        config: dict[str, Any],
        submit: Submit,
        submit_stream: SubmitStream,
        broken: Callable[[], str],
        statistics: Statistics,
        many: frozenset[int] = frozenset(),
        fits: Fits = NO_FITS,
        most_inflight: int = 0,
        most_of_step: int = 0,
        own: Mapping[int, Servable] | None = None,
        each: Mapping[int, Each] | None = None,
        lists: Iterable[str] = (),
        sequence_idle_s: float = 0.0,
        cache: EnsembleCache | None = None,
    ) -> None:
        """`many` are the steps whose models answer any number of times.

        Those in `each` run once for each item of the tensors that are `lists`.

        Sequences, which models of its steps have if there is a time that they may be idle, go on
        in the version that they began in.

        Over `most_inflight` requests are refused; over `most_of_step` of one step they wait.
        """
        self.signature = signature
        self.version = version
        self.config = config
        self.statistics = statistics
        self.dag = dag
        self.types = types
        self.fits = fits
        self.many = many
        self.each = each or {}
        self.lists = frozenset(lists)
        self.decoupled = bool(many)
        if many:
            self.config = config | {"model_transaction_policy": {"decoupled": True}}
        self._submit = submit
        self._submit_stream = submit_stream
        self._limits = [StepLimit(most_of_step) for _ in dag.steps] if most_of_step else []
        self._why_broken = broken
        self._most_inflight = most_inflight
        # Steps that are nobody else's: they live and end with the ensemble.
        self.own = own or {}
        self.hosts = [host for servable in self.own.values() for host in servable.hosts]
        self._runs: set[Run] = set()
        self.sequence_idle_s = sequence_idle_s
        self._sequences = Remembered[bool](sequence_idle_s)
        self.cache = cache
        statistics.caches = cache is not None
        self._draining = self._closed = False
        self._idle = Idle(lambda: not self._runs)

    @property
    def broken(self) -> str:
        """Why a step's model cannot answer, or ""."""
        return next((own.broken for own in self.own.values() if own.broken), self._why_broken())

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        """Start a request's way through the steps."""
        self._require_room(request)
        checked = self.signature.check(request)
        self._note_sequence(request)
        run = OnceRun(self, request, reply, checked.rows)
        if self.cache is not None:
            run.cache_key = self.cache.key(request, checked.arrays)
            if run.cache_key and self._answer_again(self.cache, run.cache_key, request, reply):
                return ENDED
        return self._started(run, checked.arrays)

    def _answer_again(
        self, cache: EnsembleCache, key: bytes, request: InferRequest, reply: Reply
    ) -> bool:
        """Answer as the same was answered before; false if it was not, or is not known."""
        began_ns = time.monotonic_ns()
        outputs = cache.get(key)
        took = self.statistics.cache_miss if outputs is None else self.statistics.cache_hit
        took.add(time.monotonic_ns() - began_ns)
        if outputs is None:
            return False
        found = self.respond(request, outputs.__getitem__, lambda name: name not in outputs)
        answer = response(self, request, found)
        self.statistics.record_success(0, time.monotonic_ns() - began_ns)
        hand_over(reply, answer)
        return True

    def submit_stream(self, request: InferRequest, reply: StreamReply) -> StreamRun:
        """As `submit`, where steps answer any number of times."""
        self._require_room(request)
        checked = self.signature.check(request)
        self._note_sequence(request)
        run = StreamRun(self, request, reply, checked.rows)
        return self._started(run, checked.arrays)

    def _started(self, run: Way, arrays: dict[str, Array]) -> Way:
        self._runs.add(run)
        run.start(arrays)
        return run

    def _note_sequence(self, request: InferRequest) -> None:
        sequence = sequence_of(request) if self.sequence_idle_s else 0
        if sequence:
            now = time.monotonic()
            self._sequences.keep(sequence, True, now, ends=ends_sequence(request))

    def keeps(self, sequence: int | str) -> bool:
        """Whether a sequence is open in models of its steps, as far as it was begun here."""
        return self._sequences.get(sequence, time.monotonic()) is not None

    def forsake(self, sequence: int | str, why: str = "") -> None:
        """A sequence begins anew in another version; the steps hear of that themselves."""
        self._sequences.forget(sequence)

    def open_sequences(self) -> int:
        """How many sequences may go on here."""
        self._sequences.forget_idle(time.monotonic())
        return len(self._sequences)

    def _require_room(self, request: InferRequest) -> None:
        if self._draining and (self._closed or not is_part(request)):
            raise Unavailable(
                f"'{self.signature.model}' version {self.version} is not at ready state"
            )
        if self._most_inflight and len(self._runs) >= self._most_inflight:
            self.statistics.record_failure("REJECTED", 0)
            raise Overloaded(prefix(request) + "Exceeds maximum number of requests in flight")

    def call(self, at: int, request: InferRequest, reply: Reply) -> Ticket:
        """Send a step's request to its model."""
        own = self.own.get(at)
        submit = self._submit if own is None else partial(_ask_own, own)
        if request.trace is not None:
            reply = request.trace.watching(reply)
        if not self._limits:
            return submit(request, reply)

        def answer(given: InferResponse | TuiliError) -> None:
            turn.over()
            reply(given)

        turn = Turn(self._limits[at], lambda: submit(request, answer))
        turn.enter()
        return turn

    def call_many(self, at: int, request: InferRequest, reply: StreamReply) -> Ticket:
        """As `call`, for a step that answers any number of times."""
        if request.trace is not None:
            reply = request.trace.watching_many(reply)
        if not self._limits:
            return self._submit_stream(request, reply)

        def answer(given: InferResponse | TuiliError | None, final: bool) -> None:
            if final:
                turn.over()
            reply(given, final)

        turn = Turn(self._limits[at], lambda: self._submit_stream(request, answer))
        turn.enter()
        return turn

    def respond(
        self,
        request: InferRequest,
        value_of: Callable[[str], Value],
        absent: Callable[[str], bool],
    ) -> list[OutputTensor]:
        """The outputs that the request asked for, as far as they are there."""
        if GUARD.losses and request.shared is not None:
            request.shared.require_whole()
        wanted = request.outputs or [RequestedOutput(name) for name in self.dag.outputs]
        found: list[OutputTensor] = []
        for output in wanted:
            if not absent(output.name):
                value = value_of(output.name)
                assert not isinstance(value, Items)  # refused where a pipeline is planned
                array = self.fits.out(output.name, value)
                array = as_declared(self.signature, self.signature.outputs[output.name], array)
                found.append(finish_output(self.signature, output, array, request.shared))
        return found

    async def rehearse(self, request: InferRequest) -> None:
        """Send a request through the steps before there are any others; raises what fails.

        It counts for the models of its steps, which others ask as well.
        """
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(answer: InferResponse | TuiliError | None, final: bool) -> None:
            if isinstance(answer, TuiliError) and not over.done():
                over.set_exception(answer)
            elif final and not over.done():
                over.set_result(None)

        self.statistics.muted = True
        ticket: Ticket = ENDED
        try:
            if self.decoupled:
                ticket = self.submit_stream(request, answered)
            else:
                ticket = self.submit(request, partial(answered, final=True))
            async with asyncio.timeout(_REHEARSAL_S):
                await over
        except TimeoutError:
            raise DeadlineExceeded(f"its steps took longer than {_REHEARSAL_S:g} s") from None
        finally:
            ticket.cancel()
            self.statistics.muted = False

    def forget(self, run: Run) -> None:
        """A request has ended."""
        self._runs.discard(run)
        self._idle.settle()

    def pending(self) -> int:
        """How many requests are on their way."""
        return len(self._runs)

    def hold(self) -> None:
        """Stay until `release`, for the other steps of a request to a pipeline around it."""
        self._idle.hold()

    def release(self) -> None:
        """The request that held it has ended."""
        self._idle.release()

    def shut(self) -> None:
        """Refuse new requests, but for parts of those that are under way."""
        self._draining = True
        self._sequences.clear()

    async def drain(self, timeout_s: float | None = None) -> bool:
        """As `shut`, and wait for those here; false when time ran out first."""
        self.shut()
        return await self._idle.wait(timeout_s)

    async def close(self) -> None:
        """Release the steps that are its own; its models are others'."""
        self._closed = True
        await self.drain()
        await asyncio.gather(*(own.close() for own in self.own.values()))


def _ask_own(own: Servable, request: InferRequest, reply: Reply) -> Ticket:
    """As any model is asked: what it refuses is an answer."""
    try:
        return own.submit(request, reply)
    except TuiliError as error:
        reply(error)
        return ENDED

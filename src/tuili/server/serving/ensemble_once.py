"""OnceRun: a request on its way through an ensemble all of whose steps answer once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from tuili.errors import InvalidModel, TuiliError
from tuili.server.execution.pending import Reply, Ticket
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.kept import Kept
from tuili.server.protocol.messages import Array, InferRequest, InferResponse
from tuili.server.scheduling.conditions import Scalar
from tuili.server.scheduling.flow import Flow
from tuili.server.serving.answering import hand_over
from tuili.server.serving.ensemble_each import Items, Value
from tuili.server.serving.ensemble_steps import (
    LeftOut,
    Parts,
    call_step,
    made_by,
    record_answered,
    response,
    scalar,
    wanted_of,
)


class OnceRun:
    """One request in an ensemble; also its ticket."""

    def __init__(self, parts: Parts, request: InferRequest, reply: Reply, rows: int) -> None:
        self._parts = parts
        self._request = request
        self._reply: Reply | None = reply
        self._rows = rows
        self._started_ns = time.monotonic_ns()
        self._flow = Flow(parts.dag, wanted_of(parts, request), self._value_of)
        self._tensors: dict[str, Value] = {}
        self._tickets: dict[int, Ticket] = {}
        self._left_out = LeftOut()
        # Of the pipeline that this one is a step of, if it is one.
        self._kept = request.kept or Kept()
        # By what its answer is kept; b"": it is not.
        self.cache_key = b""

    def start(self, arrays: dict[str, Array]) -> None:
        """The inputs are there: go."""
        self._arrive(arrays, [name for name in self._parts.dag.inputs if name not in arrays])

    def cancel(self) -> None:
        """Forget the request and the steps that it has under way."""
        if self._reply is None:
            return
        self._parts.statistics.record_failure("CANCELED", self._age_ns())
        self._end()

    def _arrive(self, arrays: Mapping[str, Value], absent: Sequence[str] = ()) -> None:
        try:
            self._tensors.update(arrays)
            ready = self._flow.arrived(arrays, absent)
            if self._flow.done():
                self._answer()
                return
            # Before any is called: one that answers at once frees what those after it need.
            gathered = [(at, self._gather(at)) for at in ready]
            self._free(ready)
            for at, tensors in gathered:
                self._call(at, tensors)
                if self._reply is None:
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, the request has ended
            self._fail(of_tree(error, "an ensemble's step could not be asked"))

    def _array_of(self, tensor: str) -> Value:
        return self._tensors[self._flow.source_of(tensor)]

    def _value_of(self, tensor: str) -> Scalar:
        return scalar(self._parts, self._request, tensor, self._array_of(tensor))

    def _gather(self, at: int) -> dict[str, Value]:
        needs = self._parts.dag.steps[at].needs.values()
        return {name: self._array_of(name) for name in needs if not self._flow.is_absent(name)}

    def _free(self, started: Sequence[int]) -> None:
        for at in started:
            for tensor in self._flow.free(at):
                self._tensors.pop(tensor, None)

    def _call(self, at: int, arrays: dict[str, Value]) -> None:
        done = partial(self._step_done, at)
        ticket = call_step(self._parts, at, self._request, arrays, self._kept, done)
        if self._reply is not None:
            self._tickets[at] = ticket

    def _step_done(self, at: int, answers: Sequence[InferResponse] | TuiliError) -> None:
        self._tickets.pop(at, None)
        if self._reply is None:
            return
        try:
            arrays, left_out = made_by(self._parts, at, answers)
        except Exception as error:  # noqa: BLE001 - as in `_arrive`
            self._fail(of_tree(error, "an ensemble's step made an odd answer"))
            return
        self._left_out.note(left_out, self._parts.dag.steps[at].model)
        self._arrive(arrays, left_out)

    def _answer(self) -> None:
        parts, request, reply = self._parts, self._request, self._reply
        missing = self._flow.missing()
        if missing:
            self._left_out.check(parts, request, missing)
        if missing and not self._left_out.explains(missing):
            raise InvalidModel(
                f"ensemble '{parts.dag.name}': every step that makes output '{missing[0]}' was "
                "skipped; give it another source that is always there"
            )
        outputs = parts.respond(request, self._array_of, self._flow.is_absent)
        answer = response(parts, request, outputs)
        if self.cache_key and parts.cache is not None and not missing:
            parts.cache.put(self.cache_key, self._wanted())
        record_answered(parts, self._rows, self._age_ns())
        self._end()
        if reply is not None:
            hand_over(reply, answer)

    def _wanted(self) -> dict[str, Array]:
        """The outputs that were asked for, as the steps made them."""
        found: dict[str, Array] = {}
        for name in wanted_of(self._parts, self._request):
            value = self._array_of(name)
            assert not isinstance(value, Items)  # refused where a pipeline is planned
            found[name] = value
        return found

    def _fail(self, error: TuiliError) -> None:
        reply = self._reply
        if reply is not None:
            self._parts.statistics.record_failure("OTHER", self._age_ns())
            self._end()
            hand_over(reply, error)

    def _end(self) -> None:
        self._reply = None
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.cancel()
        self._flow.close()
        self._tensors.clear()
        if self._kept is not self._request.kept:
            self._kept.release()
        self._parts.forget(self)

    def _age_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns

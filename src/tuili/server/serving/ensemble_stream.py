"""StreamRun: a request in an ensemble with steps that answer any number of times.

Each of their answers goes on through the steps after it, and each time all outputs are there the
ensemble answers. Answers leave in the order of those that they come from, however long the steps
after them take with each: text stays in order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from tuili.errors import TuiliError
from tuili.server.execution.pending import StreamReply, Ticket
from tuili.server.execution.unexpected import of_tree
from tuili.server.protocol.kept import Kept
from tuili.server.protocol.messages import Array, InferRequest, InferResponse
from tuili.server.scheduling.branching import Branch
from tuili.server.serving.ensemble_each import Value
from tuili.server.serving.ensemble_steps import (
    LeftOut,
    Parts,
    call_step,
    made_by,
    record_answered,
    response,
    scalar,
    step_request,
    wanted_of,
)

_Where = tuple[Branch[Value], int]


class StreamRun:
    """One request and its answers; also its ticket."""

    def __init__(self, parts: Parts, request: InferRequest, reply: StreamReply, rows: int) -> None:
        self._parts = parts
        self._request = request
        self._reply: StreamReply | None = reply
        self._rows = rows
        self._started_ns = time.monotonic_ns()
        scalar_of = partial(scalar, parts, request)
        self._root: Branch[Value] = Branch(parts.dag, wanted_of(parts, request), scalar_of)
        self._tickets: dict[_Where, Ticket] = {}
        self._left_out = LeftOut()
        self._under_way = 0
        self._kept = request.kept or Kept()

    def start(self, arrays: dict[str, Array]) -> None:
        """The inputs are there: go."""
        self._under_way += 1
        absent = [name for name in self._parts.dag.inputs if name not in arrays]
        self._guarded(partial(self._arrive, self._root, arrays, absent))
        self._less()

    def cancel(self) -> None:
        """Forget the request and the steps that it has under way."""
        if self._reply is not None:
            self._parts.statistics.record_failure("CANCELED", self._age_ns())
            self._end()

    # ---- steps
    def _guarded(self, work: partial[None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the request has ended
            self._fail(of_tree(error, "an ensemble's step could not be asked"))

    def _arrive(
        self, branch: Branch[Value], arrays: Mapping[str, Value], absent: Sequence[str]
    ) -> None:
        started = branch.arrived(arrays, absent)
        for where, at in started:
            where.began(at)
        self._under_way += len(started)
        for done in branch.finished():
            self._answer(done)
        for where, at in started:
            if self._reply is not None:
                self._call(where, at)

    def _call(self, branch: Branch[Value], at: int) -> None:
        parts, flow = self._parts, branch.flow
        needs = parts.dag.steps[at].needs.values()
        arrays = {name: branch.value(name) for name in needs if not flow.is_absent(name)}
        if at in parts.many:
            request = step_request(parts, at, self._request, arrays, self._kept)
            ticket = parts.call_many(at, request, partial(self._part, branch, at))
        else:
            done = partial(self._whole, branch, at)
            ticket = call_step(parts, at, self._request, arrays, self._kept, done)
        if self._reply is not None and at in branch.running:
            self._tickets[branch, at] = ticket

    def _whole(
        self, branch: Branch[Value], at: int, answers: Sequence[InferResponse] | TuiliError
    ) -> None:
        """All that a step says that answers once."""
        if self._reply is None:
            return

        def take() -> None:
            arrays, left_out = made_by(self._parts, at, answers)
            self._left_out.note(left_out, self._parts.dag.steps[at].model)
            self._arrive(branch, arrays, left_out)

        self._guarded(partial(take))
        self._step_over(branch, at)

    def _part(
        self,
        branch: Branch[Value],
        at: int,
        answer: InferResponse | TuiliError | None,
        final: bool,
    ) -> None:
        """One of many answers of a step, or its end."""
        if self._reply is None:
            return

        def take() -> None:
            if answer is not None:
                told = answer if isinstance(answer, TuiliError) else (answer,)
                arrays, left_out = made_by(self._parts, at, told)
                self._left_out.note(left_out, self._parts.dag.steps[at].model)
                self._arrive(branch.opened(at), arrays, left_out)

        self._guarded(partial(take))
        if final:
            self._step_over(branch, at)
        elif self._reply is not None:
            self._send()

    def _step_over(self, branch: Branch[Value], at: int) -> None:
        if self._reply is None:
            return
        self._tickets.pop((branch, at), None)
        branch.ended(at)
        self._less()

    def _less(self) -> None:
        """Something that was under way is over; with the last of it the request is."""
        self._under_way -= 1
        self._send()

    def _succeeded(self) -> None:
        record_answered(self._parts, self._rows, self._age_ns())
        self._end()

    # ---- answers
    def _answer(self, branch: Branch[Value]) -> None:
        branch.answer(self._answer_of(branch))

    def _answer_of(self, branch: Branch[Value]) -> InferResponse | None:
        """What a branch has come to; None where conditions skipped all that it was to make."""
        missing = branch.flow.missing()
        self._left_out.check(self._parts, self._request, missing)
        outputs = self._parts.respond(self._request, branch.value, branch.flow.is_absent)
        if not outputs and not self._left_out.explains(missing):
            return None
        return response(self._parts, self._request, outputs)

    def _send(self) -> None:
        """Send what may leave; the last answer says that it is the last one."""
        collected = self._root.collect(everything=not self._under_way)
        answers = [answer for answer in collected if isinstance(answer, InferResponse)]
        last = answers.pop() if answers and not self._under_way else None
        for answer in answers:
            if self._reply is not None:
                self._reply(answer, False)
        reply = self._reply
        if self._under_way or reply is None:
            return
        self._succeeded()
        reply(last, True)

    def _fail(self, error: TuiliError) -> None:
        reply = self._reply
        if reply is not None:
            self._parts.statistics.record_failure("OTHER", self._age_ns())
            self._end()
            reply(error, True)

    def _end(self) -> None:
        self._reply = None
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.cancel()
        self._root.close()
        if self._kept is not self._request.kept:
            self._kept.release()
        self._parts.forget(self)

    def _age_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns

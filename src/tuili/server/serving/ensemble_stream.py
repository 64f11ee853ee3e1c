"""StreamRun: a request in an ensemble with steps that answer any number of times.

Each of their answers goes on through the steps after it, and each time all outputs are there the
ensemble answers. Answers leave in the order of those that they come from, however long the steps
after them take with each: text stays in order.

An error has its place among them, and ends the request there: what comes of earlier answers leaves
before it, and what is after it is stopped at once. (Triton ends with the error too, but drops all
that is still on its way then: what arrives depends on how fast each step was.)
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
from tuili.server.scheduling.branching import Branch, Place
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
        # Where the first error is; nothing from there on is worth doing.
        self._bound: Place | None = None
        self._kept = request.kept or Kept()

    def start(self, arrays: dict[str, Array]) -> None:
        """The inputs are there: go."""
        self._under_way += 1
        absent = [name for name in self._parts.dag.inputs if name not in arrays]
        self._guarded(self._root, partial(self._arrive, self._root, arrays, absent))
        self._under_way -= 1
        self._send()

    def cancel(self) -> None:
        """Forget the request and the steps that it has under way."""
        if self._reply is not None:
            self._parts.statistics.record_failure("CANCELED", self._age_ns())
            self._end()

    # ---- steps
    def _guarded(self, branch: Branch[Value], work: partial[None]) -> None:
        """Do something for a branch; whatever goes wrong ends the request there."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - see above
            self._stop(branch, of_tree(error, "an ensemble's step could not be asked"))

    def _arrive(
        self, branch: Branch[Value], arrays: Mapping[str, Value], absent: Sequence[str]
    ) -> None:
        ready = branch.arrived(arrays, absent)
        started = [(where, at) for where, at in ready if not self._is_beyond(where)]
        for where, at in started:
            where.began(at)
        self._under_way += len(started)
        for done in branch.finished():
            self._guarded(done, partial(self._answer, done))
        for where, at in started:
            if self._reply is not None and at in where.running:
                self._guarded(where, partial(self._call, where, at))

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
        elif self._reply is None or self._is_beyond(branch):
            ticket.cancel()  # What came of its answers meanwhile has ended the request there.

    def _whole(
        self, branch: Branch[Value], at: int, answers: Sequence[InferResponse] | TuiliError
    ) -> None:
        """All that a step says that answers once."""
        if self._reply is None or at not in branch.running:
            return
        self._tickets.pop((branch, at), None)
        self._guarded(branch, partial(self._take, branch, at, answers))
        self._drop(branch, at)
        self._send()

    def _part(
        self,
        branch: Branch[Value],
        at: int,
        answer: InferResponse | TuiliError | None,
        final: bool,
    ) -> None:
        """One of many answers of a step, or its end."""
        if self._reply is None or at not in branch.running:
            return
        if final:
            self._tickets.pop((branch, at), None)
        if answer is not None:
            opened = branch.opened(at)
            told = answer if isinstance(answer, TuiliError) else (answer,)
            self._guarded(opened, partial(self._take, opened, at, told))
            # What it would say after an error is nobody's.
            final = final or self._is_beyond(opened)
        if final:
            self._drop(branch, at)
        self._send()

    def _take(
        self, branch: Branch[Value], at: int, answers: Sequence[InferResponse] | TuiliError
    ) -> None:
        arrays, left_out = made_by(self._parts, at, answers)
        self._left_out.note(left_out, self._parts.dag.steps[at].model)
        self._arrive(branch, arrays, left_out)

    def _stop(self, branch: Branch[Value], error: TuiliError) -> None:
        """The request ends with an error in the place of this branch; what is before goes on."""
        if branch.is_over() or self._is_beyond(branch):
            return  # Its answer did without what failed, or the request ends before it.
        self._bound = branch.place()
        branch.answer(error)
        for where, at in list(self._tickets):
            if self._is_beyond(where):
                self._drop(where, at)

    def _is_beyond(self, branch: Branch[Value]) -> bool:
        return self._bound is not None and branch.place() >= self._bound

    def _drop(self, branch: Branch[Value], at: int) -> None:
        """A step is over: by itself, or because nobody wants what it would say."""
        ticket = self._tickets.pop((branch, at), None)
        if ticket is not None:
            ticket.cancel()
        if at in branch.running:
            self._under_way -= 1
            branch.ended(at)

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
        if self._reply is None:
            return
        waiting: InferResponse | None = None
        for answer in self._root.collect(everything=not self._under_way):
            if not isinstance(answer, InferResponse | TuiliError):
                continue  # It came to nothing.
            if waiting is not None:
                self._tell(waiting, final=False)
            if isinstance(answer, TuiliError):
                self._tell(answer, final=True)
                return
            waiting = answer
        if not self._under_way:
            self._tell(waiting, final=True)
        elif waiting is not None:
            self._tell(waiting, final=False)

    def _tell(self, answer: InferResponse | TuiliError | None, *, final: bool) -> None:
        reply = self._reply
        if reply is None:
            return  # Whoever asked took it back with the answer before.
        if isinstance(answer, TuiliError):
            self._parts.statistics.record_failure("OTHER", self._age_ns())
        elif final:
            record_answered(self._parts, self._rows, self._age_ns())
        if final:
            self._end()
        reply(answer, final)

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

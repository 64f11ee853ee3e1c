"""Rehearsal: a runner answers a request before there are others, so that none of those is first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tuili.backends.requests import Answered
from tuili.errors import TuiliError
from tuili.server.execution.pending import Pending
from tuili.server.execution.running import Outcome
from tuili.server.protocol.messages import InferResponse

Start = Callable[[list[Pending], Callable[[Outcome], None]], None]


def unheard(answer: InferResponse | TuiliError) -> None:
    """The reply of a request that is nobody's."""


async def rehearsed(start: Start, item: Pending, *, many: bool) -> Outcome:
    """What came of a request that `start` gives to a runner; raises the first error of any answer.

    With `many` it may be answered any number of times: then run and answers end apart.
    """
    over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    errors: list[TuiliError] = []
    freed = ended = False

    def part(item: Pending, answer: Answered, final: bool) -> bool:
        if answer.error is not None:
            errors.append(answer.error)
        return True

    def done(outcome: Outcome) -> None:
        nonlocal freed, ended
        freed, ended = freed or outcome.frees, ended or outcome.ends
        if outcome.error is not None:
            errors.append(outcome.error)
        errors.extend([each.error for each in outcome.answers or () if each.error is not None])
        if freed and ended and not over.done():
            over.set_result(outcome)

    if many:
        item.part = part
    start([item], done)
    outcome = await over
    if errors:
        raise errors[0]
    return outcome

"""Readiness: what the server knows of its models, and what the models say themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeVar

from tuili.server.control.reconciler import Front
from tuili.server.execution.readying import Readying

Answer = TypeVar("Answer")


class Verdict(NamedTuple):
    """Whether requests would be answered, and if not, why, as far as that is known."""

    ready: bool
    why: str = ""


Judged = Verdict | Awaitable[Verdict]


def judged(known: Verdict, models: Iterable[tuple[str, Front]]) -> Judged:
    """The verdict once these models were asked, those that can tell, unless it is no already."""
    asked = [
        (name, host.readying)
        for name, front in models
        for host in front.hosts
        if host.up and host.readying is not None
    ]
    return _ask(asked) if known.ready and asked else known


async def _ask(asked: list[tuple[str, Readying]]) -> Verdict:
    reasons = await asyncio.gather(*(readying.reason() for _, readying in asked))
    told = [f"model '{name}': {why}" for (name, _), why in zip(asked, reasons, strict=True) if why]
    return Verdict(not told, "; ".join(dict.fromkeys(told)))


def then(found: Judged, answer: Callable[[Verdict], Answer]) -> Answer | Awaitable[Answer]:
    """What `answer` makes of a verdict, now or once it is there."""

    async def later(coming: Awaitable[Verdict]) -> Answer:
        return answer(await coming)

    return answer(found) if isinstance(found, Verdict) else later(found)

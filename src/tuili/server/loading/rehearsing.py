"""Rehearsal: a version that is about to go live answers the recorded requests of its model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from tuili.errors import TuiliError
from tuili.server.execution.open_calls import OpenCall
from tuili.server.execution.running import Runner
from tuili.server.protocol.messages import InferRequest
from tuili.server.protocol.recorded import parse
from tuili.server.protocol.signature import Signature
from tuili.server.repository import recordings

_log = logging.getLogger("tuili.server")


class Actor(Protocol):
    """A version that can answer, though nobody asks it yet."""

    signature: Signature

    async def rehearse(self, request: InferRequest) -> None: ...


class Understudy(Protocol):
    """A version that answers, to which instances are to be added."""

    signature: Signature

    async def rehearse(
        self, request: InferRequest, runners: Sequence[Runner] | None = None
    ) -> None: ...


class NewInstances:
    """The instances that are to be added to a version, as what rehearses."""

    def __init__(self, live: Understudy, runners: Sequence[Runner]) -> None:
        self.signature = live.signature
        self._live = live
        self._runners = runners

    async def rehearse(self, request: InferRequest) -> None:
        """Run a request on all of them; raises what fails."""
        await self._live.rehearse(request, self._runners)


# Does what a load waits for, as a call of its own, which is refused where it would wait for ever.
Asked = Callable[[Callable[[OpenCall], Awaitable[None]]], Awaitable[None]]


async def rehearse(live: Actor, folder: Path, asked: Asked | None = None) -> None:
    """Let a version answer what was recorded; what does not fit it any more is told in the log.

    It may have been recorded with an earlier version, so none of it can hinder the load.
    """
    try:
        recorded = await asyncio.to_thread(recordings.read, folder)
    except OSError as error:
        _log.warning("recorded requests cannot be read, and warm nothing up: %s", error)
        return
    for path, data in recorded.items():
        try:
            request = parse(data, live.signature.model)
            await (live.rehearse(request) if asked is None else asked(partial(_on, live, request)))
        except TuiliError as error:
            _log.warning("recorded request %s does not warm up the model: %s", path, error)


def _on(live: Actor, request: InferRequest, call: OpenCall) -> Awaitable[None]:
    """The rehearsal of a request that comes of a call."""
    request.call = call
    return live.rehearse(request)

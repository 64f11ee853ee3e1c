"""Rehearsal: a version that is about to go live answers the recorded requests of its model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tuili.errors import TuiliError
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


async def rehearse(live: Actor, folder: Path) -> None:
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
            await live.rehearse(parse(data, live.signature.model))
        except TuiliError as error:
            _log.warning("recorded request %s does not warm up the model: %s", path, error)

"""Readying: what the model in a host says of its readiness, asked when somebody wants to know.

One question is under way at a time; who asks meanwhile gets its answer too. A model that takes its
time is not ready to those who waited long enough, and its answer goes to those who come later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

_log = logging.getLogger("tuili.server")
# As long as Triton waits.
_PATIENCE_S: Final = 5.0


class Readying:
    """The questions to one host."""

    def __init__(self, name: str, ask: Callable[[], None]) -> None:
        """`ask` sends a question, which `answered` answers."""
        self._name = name
        self._ask = ask
        self._answer: asyncio.Future[str] | None = None
        self._last = ""

    async def reason(self, patience_s: float = _PATIENCE_S) -> str:
        """Why the model says that it is not ready; "" when it is."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._ask()
        done, _ = await asyncio.wait([self._answer], timeout=patience_s)
        reason = f"its is_ready() takes more than {patience_s:g} s"
        for each in done:
            reason = each.result()
        if reason and reason != self._last:
            _log.warning("%s is not ready: %s", self._name, reason)
        self._last = reason
        return reason

    def answered(self, reason: str) -> None:
        """The model, or what became of it, has answered."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.set_result(reason)

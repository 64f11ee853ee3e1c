"""Idle: who waits until a version has nothing to do, and nobody who holds it may want more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Idle:
    """Tells when the last request to a version is over, and the last hold on it is released."""

    def __init__(self, has_nothing: Callable[[], bool]) -> None:
        self._has_nothing = has_nothing
        self._holds = 0
        self._waited_for: asyncio.Future[None] | None = None

    def hold(self) -> None:
        """A request to a pipeline goes on with this version, whichever answers others by then."""
        self._holds += 1

    def release(self) -> None:
        """That request has ended."""
        assert self._holds > 0, "released more often than held"
        self._holds -= 1
        self.settle()

    def settle(self) -> None:
        """Something is over: tell who waits if it was the last."""
        waited_for = self._waited_for
        if waited_for is not None and self._is_idle():
            self._waited_for = None
            waited_for.set_result(None)

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait until nothing is left; false when time ran out first."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_idle():
                    if self._waited_for is None:
                        self._waited_for = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._waited_for)
        except TimeoutError:
            return False
        return True

    def _is_idle(self) -> bool:
        return not self._holds and self._has_nothing()

"""What a data plane needs of other processes that take requests for its models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

Answer = TypeVar("Answer")


class FrontEnds(Protocol):
    """The other processes."""

    async def in_step(self) -> None:
        """Return once all of them know of all changes."""
        ...

    async def count(self) -> None:
        """Return once all that they counted is counted here."""
        ...

    def pending(self, model: str, version: str) -> int:
        """How many requests to a version wait there."""
        ...

    def lines(self) -> list[str]:
        """Their lines in the Prometheus text."""
        ...

    def traces_changed(self) -> None:
        """Other requests are traced than before."""
        ...

    def log_settings_changed(self, settings: dict[str, Any]) -> None:
        """They log what this process logs."""
        ...


async def after(first: Awaitable[None], answer: Callable[[], Answer]) -> Answer:
    """What `answer` says, after something else."""
    await first
    return answer()


async def told(result: Any, front_ends: FrontEnds) -> Any:
    """The result of a change, or what it promises, once everybody knows of it; or its error."""
    try:
        return await result if isinstance(result, Awaitable) else result
    finally:
        await front_ends.in_step()

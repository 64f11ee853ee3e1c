"""Hold: a scheduler that does nothing until so many requests wait, as Triton's tests need it.

`TRITONSERVER_DELAY_SCHEDULER` and `TRITONSERVER_BACKLOG_DELAY_SCHEDULER` say how many; that is for
tests of batches, which would otherwise hang on who comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REQUESTS: Final = "TRITONSERVER_DELAY_SCHEDULER"
BACKLOG: Final = "TRITONSERVER_BACKLOG_DELAY_SCHEDULER"


class Hold:
    """Holds once, until `requests` wait for an instance and `backlog` for a slot."""

    def __init__(self, requests: int, backlog: int = 0) -> None:
        self._requests = requests
        self._backlog = backlog

    def holds(self, requests: int, backlog: int) -> bool:
        """Whether to go on waiting; once false, always false."""
        if requests >= self._requests and backlog >= self._backlog:
            self._requests = self._backlog = 0
        return self._requests > 0


def hold_of(environment: Mapping[str, str]) -> Hold | None:
    """What the environment asks for; None: nothing."""
    requests, backlog = environment.get(REQUESTS, ""), environment.get(BACKLOG, "")
    if not requests.isdigit() or not int(requests):
        return None
    return Hold(int(requests), int(backlog) if backlog.isdigit() else 0)

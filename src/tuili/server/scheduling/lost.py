"""Lost: sequences that ended without their client's END, and why, for when it goes on with them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tuili.server.scheduling.controls import SequenceId

# What clients may make a server remember; of more than these the oldest are forgotten.
_MOST: Final = 10_000


class Lost:
    """The sequences lost last, of all models: it outlives their versions."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._why: OrderedDict[tuple[str, SequenceId], str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._why)

    def note(self, model: str, sequence: SequenceId, why: str) -> None:
        """A sequence is lost."""
        self._why[model, sequence] = why
        self._why.move_to_end((model, sequence))
        if len(self._why) > self._most:
            self._why.popitem(last=False)

    def forget(self, model: str, sequence: SequenceId) -> None:
        """Another sequence has that id now."""
        self._why.pop((model, sequence), None)

    def why(self, model: str, sequence: SequenceId) -> str:
        """What became of a sequence; "" where nobody knows of it."""
        return self._why.get((model, sequence), "")

"""Homes: versions that answered before and have open sequences, which go on where they began.

Another version has no state of a sequence. So who goes on with one is sent to the version that has
it, whichever answers by now; and a version that is replaced goes when its last sequence has ended
or was idle for too long. `LEAVING` of a model may wait for that at once: of more the oldest ends
its sequences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from tuili.errors import TuiliError
from tuili.server.protocol.messages import InferRequest, sequence_of, starts_sequence

LEAVING: Final = 2
# How soon it is seen that the last sequence of a version has ended; nobody waits for that.
_LOOK_S: Final = 0.2
Sequence = int | str


class Home(Protocol):
    """What may have sequences."""

    @property
    def version(self) -> str: ...
    def keeps(self, sequence: Sequence) -> bool: ...
    def forsake(self, sequence: Sequence, why: str = "") -> None: ...
    def open_sequences(self) -> int: ...
    def shut(self) -> None: ...


Running = TypeVar("Running", bound=Home)


class Homes(Generic[Running]):
    """Where the open sequences of all models are, beside in what answers now."""

    def __init__(self, look_s: float = _LOOK_S) -> None:
        self._look_s = look_s
        self._homes: dict[str, list[Running]] = {}
        self._leaving: dict[str, list[Running]] = {}

    def note(self, model: str, versions: Iterable[Running]) -> None:
        """What answers may be another now: remember which of these versions have sequences."""
        there = dict.fromkeys((*self._homes.pop(model, ()), *versions))
        found = [each for each in there if each.open_sequences()]
        if found:
            self._homes[model] = found

    def answering(self, request: InferRequest, live: Callable[[], Running]) -> Running:
        """What answers a request of a sequence: where that is open, else what is `live`."""
        starts = starts_sequence(request)
        try:
            found = live()
        except TuiliError:
            home = None if starts else self._of(request, None)
            if home is None:
                raise
            return home
        if starts:
            home = self._of(request, found)
            if home is not None:
                home.forsake(sequence_of(request))
            return found
        if found.keeps(sequence_of(request)):
            return found
        return self._of(request, found) or found

    def _of(self, request: InferRequest, but: Running | None) -> Running | None:
        """The version, other than `but`, that has a request's sequence and may be meant by it."""
        sequence = sequence_of(request)
        number = request.version if request.version.isdecimal() else ""
        for each in self._homes.get(request.model, ()):
            if each is not but and number in ("", each.version) and each.keeps(sequence):
                return each
        return None

    async def rest(self, model: str, running: Running) -> None:
        """Wait until a version that leaves has no open sequence."""
        leaving = self._leaving.setdefault(model, [])
        leaving.append(running)
        for former in leaving[:-LEAVING]:
            former.shut()
        try:
            while running.open_sequences():  # noqa: ASYNC110 - what leaves is in no hurry
                await asyncio.sleep(self._look_s)
        finally:
            leaving.remove(running)
            if not leaving:
                self._leaving.pop(model, None)
            self.note(model, ())

    def shut(self, model: str = "") -> None:
        """End the sequences of the versions of a model that leave; without a name of all."""
        for name in [model] if model else list(self._leaving):
            for running in self._leaving.get(name, ()):
                running.shut()

"""The life of a model version as a table: which state may follow which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class State(Enum):
    """The states of the model-repository extension."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


NEXT: Final[dict[State, frozenset[State]]] = {
    State.UNKNOWN: frozenset((State.LOADING,)),
    State.LOADING: frozenset((State.READY, State.UNAVAILABLE)),
    State.READY: frozenset((State.LOADING, State.UNLOADING, State.UNAVAILABLE)),
    State.UNLOADING: frozenset((State.UNAVAILABLE,)),
    State.UNAVAILABLE: frozenset((State.LOADING,)),
}


@dataclass(slots=True)
class VersionState:
    """Where one version stands, and why."""

    version: int
    state: State = State.UNKNOWN
    reason: str = ""
    # Loaded beside what is served, for a roll-out: if it fails, the server is ready all the same.
    beside: bool = False

    def enter(self, state: State, reason: str = "") -> None:
        """Go to another state; a step that the table lacks is a bug of ours."""
        assert state is self.state or state in NEXT[self.state], f"{self.state} -> {state}"
        self.state = state
        self.reason = reason

    def json(self, model: str) -> dict[str, Any]:
        """One entry of the repository index."""
        found = {"name": model, "version": str(self.version), "state": self.state.value}
        return {**found, "reason": self.reason} if self.reason else found

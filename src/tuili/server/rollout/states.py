"""The life of a roll-out as a table: which event may happen in which state, and what follows."""

from __future__ import annotations

from enum import Enum
from typing import Final

from tuili.errors import InvalidArgument


class State(Enum):
    """Where a roll-out stands."""

    SCHEDULED = "SCHEDULED"
    LOADING = "LOADING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # by a person
    HOLDING = "HOLDING"  # by itself: the numbers allow no answer
    PROMOTING = "PROMOTING"
    ROLLING_BACK = "ROLLING_BACK"
    PROMOTED = "PROMOTED"
    ROLLED_BACK = "ROLLED_BACK"
    ABORTED = "ABORTED"


_S: Final = State
# (state, event): next state. What is not here cannot happen.
NEXT: Final[dict[tuple[State, str], State]] = {
    (_S.SCHEDULED, "started"): _S.LOADING,
    (_S.SCHEDULED, "aborted"): _S.ABORTED,
    (_S.LOADING, "loaded"): _S.RUNNING,
    (_S.LOADING, "rolled_back"): _S.ROLLED_BACK,
    (_S.LOADING, "aborted"): _S.ABORTED,
    (_S.RUNNING, "step"): _S.RUNNING,
    (_S.RUNNING, "dropped"): _S.RUNNING,
    (_S.RUNNING, "paused"): _S.PAUSED,
    (_S.RUNNING, "held"): _S.HOLDING,
    (_S.RUNNING, "promoting"): _S.PROMOTING,
    (_S.RUNNING, "rolling_back"): _S.ROLLING_BACK,
    (_S.RUNNING, "aborted"): _S.ABORTED,
    (_S.PAUSED, "resumed"): _S.RUNNING,
    (_S.PAUSED, "promoting"): _S.PROMOTING,
    (_S.PAUSED, "rolling_back"): _S.ROLLING_BACK,
    (_S.PAUSED, "aborted"): _S.ABORTED,
    (_S.HOLDING, "resumed"): _S.RUNNING,
    (_S.HOLDING, "dropped"): _S.HOLDING,
    (_S.HOLDING, "promoting"): _S.PROMOTING,
    (_S.HOLDING, "rolling_back"): _S.ROLLING_BACK,
    (_S.HOLDING, "aborted"): _S.ABORTED,
    # A verdict that was reached is carried out, whoever restarts in between.
    (_S.PROMOTING, "pointer"): _S.PROMOTED,
    (_S.PROMOTING, "rolling_back"): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, "rolled_back"): _S.ROLLED_BACK,
}
EVENTS: Final = frozenset(event for _, event in NEXT)
FINAL: Final = frozenset((_S.PROMOTED, _S.ROLLED_BACK, _S.ABORTED))
# Where the candidates are loaded, and where they get their share of traffic.
LOADED: Final = frozenset((_S.LOADING, _S.RUNNING, _S.PAUSED, _S.HOLDING, _S.PROMOTING))
ROUTED: Final = frozenset((_S.RUNNING, _S.PAUSED, _S.HOLDING, _S.PROMOTING))
JUDGED: Final = frozenset((_S.RUNNING, _S.PAUSED, _S.HOLDING))


def after(state: State, event: str, rollout: str) -> State:
    """The state after an event; InvalidArgument when it cannot happen now."""
    found = NEXT.get((state, event))
    if found is None:
        possible = sorted(each for at, each in NEXT if at is state)
        raise InvalidArgument(
            f"roll-out {rollout!r} is {state.value}: {event!r} cannot happen now, "
            f"only {', '.join(possible) or 'nothing: it is over'}"
        )
    return found

"""Why a request for a model finds none that answers: never heard of, or not now."""

from __future__ import annotations

from collections.abc import Mapping

from tuili.errors import NotFound, TuiliError, Unavailable
from tuili.server.repository.states import State, VersionState


def unserved(
    model: str, version: str, states: Mapping[int, VersionState], *, starting: bool
) -> TuiliError:
    """The error of a request for a model ("": its newest version) that is not live.

    What may be there in a moment is unavailable, so that clients try again: they take what is not
    found for a mistake.
    """
    where = f"Request for unknown model: '{model}'"
    if version and int(version) in states:
        entry = states[int(version)]
        text = f"{where} version {version} is not at ready state: {entry.state.value}"
        return Unavailable(f"{text} {entry.reason}".rstrip())
    if starting:
        return Unavailable(f"model '{model}' is not ready: the server starts, and loads its models")
    if version and states:
        return NotFound(f"{where} version {version} is not found")
    if any(entry.state is State.LOADING for entry in states.values()):
        return Unavailable(f"model '{model}' is not ready: it is being loaded")
    return NotFound(f"{where} {'has no available versions' if states else 'is not found'}")

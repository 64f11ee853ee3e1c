"""What a model is told of a request beside its tensors."""

from __future__ import annotations

from typing import Final

from tuili.backends.requests import Told
from tuili.server.execution.pending import Pending

# Parameters that the protocol gives a meaning: the model gets them in another form, if at all.
_MEANT: Final = frozenset(("sequence_id", "sequence_start", "sequence_end", "priority", "timeout"))


def told_of(item: Pending) -> Told:
    """What a request says beside its tensors, for a model that wants to know."""
    request = item.request
    told = Told(item.rows, request.id)
    if request.outputs:
        told.outputs = [output.name for output in request.outputs]
    if item.plain is not None:
        told.shapes = {
            name: array.shape
            for name, array in item.plain.items()
            if item.arrays[name].ndim != array.ndim
        }
    given = request.parameters
    if item.sequence:
        told.sequence, told.flags = item.sequence, item.starts + 2 * item.ends
    elif given:
        told.sequence = given.get("sequence_id", 0)  # pyright: ignore[reportAttributeAccessIssue]
        told.flags = bool(given.get("sequence_start")) + 2 * bool(given.get("sequence_end"))
    if given:
        told.timeout_us = int(given.get("timeout", 0))
        told.parameters = {key: value for key, value in given.items() if key not in _MEANT}
    return told

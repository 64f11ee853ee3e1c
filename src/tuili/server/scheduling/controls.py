"""What a stateful model is told beside a request's tensors: control inputs and state tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuili.server.protocol.messages import Array

SequenceId = int | str
ControlKind = Literal["start", "ready", "end", "id"]


@dataclass(frozen=True, slots=True)
class Control:
    """An input that tells the model where in its sequence a request is."""

    name: str
    kind: ControlKind
    dtype: np.dtype
    false_true: tuple[float, float] = (0, 1)

    def refuses(self, sequence: SequenceId) -> str:
        """Why the model could not be told this id; "" when it can."""
        given = "BYTES" if isinstance(sequence, str) else "UINT64"
        if self.kind != "id" or (given == "BYTES") == self.dtype.hasobject:
            return ""
        wanted = "BYTES" if self.dtype.hasobject else self.dtype.name.upper()
        return f"control '{self.name}' data-type is '{given}', but model '{{}}' expects '{wanted}'"

    def told(
        self, flags: Mapping[ControlKind, bool], sequence: SequenceId, shape: tuple[int, ...]
    ) -> Array:
        """The value for one request."""
        array = np.empty(shape, self.dtype)
        if self.kind == "id":
            array[...] = _told_id(sequence, self.dtype)
        else:
            array[...] = self.false_true[flags[self.kind]]
        return array


@dataclass(frozen=True, slots=True)
class StateTensor:
    """A state that goes from an output to the next request's input; `initial` has the batch dim.

    With `shown` the output is the client's too.
    """

    input: str
    output: str
    initial: Array
    shown: bool = False


def _told_id(sequence: SequenceId, dtype: np.dtype) -> object:
    """A sequence's id as its model wants it."""
    if isinstance(sequence, str):
        return sequence.encode()
    if dtype.hasobject:  # of a row that is nobody's
        return b""
    return sequence & ((1 << 8 * dtype.itemsize) - 1) if dtype.kind == "u" else sequence

"""What a stateful model is told beside a request's tensors: control inputs and state tensors."""

from __future__ import annotations

import hashlib
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
    """A sequence's id as its model wants it; text for a model that wants a number becomes one."""
    if dtype.hasobject:
        return str(sequence).encode()
    if isinstance(sequence, int):
        return sequence & ((1 << 8 * dtype.itemsize) - 1) if dtype.kind == "u" else sequence
    digest = hashlib.blake2b(sequence.encode(), digest_size=8).digest()
    # Of 31 bits, so that every number type that a control may have can hold it.
    return int.from_bytes(digest, "little") % ((1 << 31) - 1) + 1

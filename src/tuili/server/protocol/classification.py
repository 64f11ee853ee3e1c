"""The classification extension: an output as its k greatest values, `value:index[:label]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import Array

# As in Triton: sorting more would keep others waiting.
_MOST_SCORES: Final = 1_000_000


def classify(name: str, scores: Array, top: int, labels: Sequence[str], batched: bool) -> Array:
    """A BYTES array of shape [batch, k] (or [k] without a batch dim), greatest value first."""
    if top < 1:
        raise InvalidArgument(
            f"classification count of output '{name}' must be positive, got {top}"
        )
    if scores.dtype == object:
        raise InvalidArgument(
            f"class result not available for output due to unsupported type 'BYTES' of '{name}'"
        )
    rows = scores.reshape(scores.shape[0], -1) if batched else scores.reshape(1, -1)
    if rows.shape[1] > _MOST_SCORES:
        raise InvalidArgument(
            f"classification output tensor too large: '{name}' has {rows.shape[1]} scores a row, "
            f"and at most {_MOST_SCORES} are sorted"
        )
    count = min(top, rows.shape[1])
    found = np.empty((len(rows), count), dtype=object)
    for row, values in enumerate(rows):
        # Stable, so that equal values keep the order of their indices.
        order = np.argsort(-values.astype(np.float64), kind="stable")[:count]
        for rank, index in enumerate(order.tolist()):
            found[row, rank] = _entry(values[index], index, labels)
    return found if batched else found[0]


def _entry(value: object, index: int, labels: Sequence[str]) -> bytes:
    whole = isinstance(value, np.integer | np.bool_)
    text = f"{int(value)}:{index}" if whole else f"{float(value):f}:{index}"  # pyright: ignore[reportArgumentType]
    if index < len(labels):
        text += f":{labels[index]}"
    return text.encode()

"""Joining: a long array of the parts that it was read in."""

from __future__ import annotations

import numpy as np

from tuili.server.protocol.messages import Array
from tuili.server.steps import Steps


def joined(parts: list[Array], dtype: np.dtype) -> Steps[Array]:
    """Flat arrays one after the other."""
    found = np.empty(sum(map(len, parts)), dtype)
    at = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        found[at : at + len(part)] = part
        at += len(part)
        yield
    return found

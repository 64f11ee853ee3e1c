"""What a client would like its replies coded as (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import re
from typing import Final

_ITEM: Final = re.compile(rb"\s*([A-Za-z*-]+)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?")


def choose_coding(accept: bytes) -> bytes:
    """The coding a client likes best among ours ; identity when it likes none."""
    best, best_weight = b"identity", 0.0
    for item in accept.lower().split(b","):
        match = _ITEM.fullmatch(item)
        if match is None or match[1] not in (b"gzip", b"deflate", b"identity"):
            continue
        try:
            weight = 1.0 if match[2] is None else float(match[2])
        except ValueError:
            continue
        if weight > best_weight:
            best, best_weight = match[1], weight
    return best

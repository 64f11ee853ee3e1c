"""Content codings: bodies that come or go as gzip or deflate."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from tuili.errors import InvalidArgument
from tuili.server.http.refusals import UnknownCoding
from tuili.server.http.reply import Buffer
from tuili.server.unpacking import Unpacking

_AUTO_DETECT: Final = 15 + 32  # zlib's wbits: a gzip or a zlib header
_WBITS: Final = {b"gzip": 15 + 16, b"deflate": 15}


def unpacking_of(coding: bytes, body: Buffer, max_bytes: int) -> Unpacking | None:
    """The body behind a Content-Encoding, at most `max_bytes` of it; None where there is none."""
    if coding in (b"", b"identity"):
        return None
    if coding not in _WBITS:
        raise UnknownCoding("Unsupported compression type")
    excess = InvalidArgument(
        f"decompressed request body exceeds the maximum allowed value of {max_bytes} bytes."
        " Use --http-max-input-size to increase the limit."
    )
    return Unpacking(body, _AUTO_DETECT, max_bytes, "the request body", excess)


def compress(coding: bytes, parts: Sequence[Buffer]) -> bytes:
    """`parts` as one gzip or zlib stream."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, _WBITS[coding])
    return b"".join([*(deflate.compress(part) for part in parts), deflate.flush()])

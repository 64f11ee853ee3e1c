"""Content codings: bodies that come or go as gzip or deflate."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from tuili.errors import InvalidArgument
from tuili.server.http.refusals import UnknownCoding
from tuili.server.http.reply import Buffer
from tuili.server.steps import Steps
from tuili.server.unpacking import Unpacking

_PIECE_BYTES: Final = 64 << 10  # which take a millisecond or two
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


def compress(coding: bytes, parts: Sequence[Buffer]) -> Steps[list[Buffer]]:
    """`parts` as one gzip or zlib stream."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, _WBITS[coding])
    found: list[Buffer] = []
    done = 0
    for part in parts:
        for at in range(0, len(part), _PIECE_BYTES):
            piece = part[at : at + _PIECE_BYTES]
            found.append(deflate.compress(piece))
            done += len(piece)
            if done >= _PIECE_BYTES:
                done = 0
                yield
    found.append(deflate.flush())
    return found

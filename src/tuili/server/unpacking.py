"""Unpacking: what a client compressed, piece by piece, as far as there is room for it.

A kilobyte may stand for a megabyte, and nobody knows before it is unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from tuili.errors import InvalidArgument, TuiliError

# What comes of a body at once, which takes no room when it is not compressed either.
_PIECE: Final = 64 << 10


class Excess(TuiliError):
    """More than is unpacked of one body."""


def unpack(
    packed: bytes | bytearray | memoryview,
    wbits: int,
    most_bytes: int,
    claim: Callable[[int], None],
    what: str,
) -> bytes | memoryview:
    """The whole of `packed`; Excess above `most_bytes`.

    `claim` is told of every piece but the first, and may refuse it; `what` is for errors.
    """
    inflate = zlib.decompressobj(wbits)
    found, view = bytearray(), memoryview(packed)
    for at in range(0, len(view), _PIECE):
        waiting: bytes | memoryview = view[at : at + _PIECE]
        while True:
            try:
                piece = inflate.decompress(waiting, _PIECE)
            except zlib.error as error:
                raise InvalidArgument(f"failed to decompress {what}: {error}") from None
            if len(found) + len(piece) > most_bytes:
                raise Excess(f"{what} decompresses to more than {most_bytes} bytes")
            if found:
                claim(len(piece))
            elif inflate.eof and at + _PIECE >= len(view) and not inflate.unused_data:
                return piece
            found += piece
            waiting = inflate.unconsumed_tail
            if len(piece) < _PIECE:
                break
        if inflate.eof:
            if inflate.unused_data or at + _PIECE < len(view):
                raise InvalidArgument(f"failed to decompress {what}: bytes after its end")
            return memoryview(found)
    raise InvalidArgument(f"failed to decompress {what}: it ends too early")

"""Unpacking: what a client compressed, piece by piece.

A kilobyte may stand for a megabyte, and nobody knows before it is unpacked.
"""

from __future__ import annotations

import zlib
from typing import Final

from tuili.errors import InvalidArgument, TuiliError

# What comes of a body at once, which takes no room when it is not compressed either.
PIECE: Final = 64 << 10

Bytes = bytes | bytearray | memoryview


class Unpacking:
    """One body on its way out of its packing; `what` is for errors, `excess` for too much of it."""

    def __init__(
        self, packed: Bytes, wbits: int, most_bytes: int, what: str, excess: TuiliError
    ) -> None:
        self._inflate = zlib.decompressobj(wbits)
        self._view = memoryview(packed)
        self._at = 0
        self._waiting: bytes | memoryview = b""  # of what was taken of `packed`
        self._held_back = False  # whether more may come without another byte of it
        self._most = most_bytes
        self._what = what
        self._excess = excess
        self._found = bytearray()
        self._only: bytes | None = None  # the piece, where it is the only one
        self.whole = False

    @property
    def size(self) -> int:
        """How much is unpacked."""
        return len(self._found)

    @property
    def result(self) -> bytes | memoryview:
        """All of it, when it is whole."""
        return memoryview(self._found) if self._only is None else self._only

    def advance(self, size: int) -> int:
        """Unpack `size` bytes more, or a piece beyond; how many of them take room."""
        before, until = self.size, self.size + size
        while not self.whole and self.size < until:
            self._next_piece()
        return max(self.size, PIECE) - max(before, PIECE)

    def _next_piece(self) -> None:
        if not self._waiting and not self._held_back:
            if self._at >= len(self._view):
                raise self._bad("it ends too early")
            self._waiting = self._view[self._at : self._at + PIECE]
            self._at += PIECE
        try:
            piece = self._inflate.decompress(self._waiting, PIECE)
        except zlib.error as error:
            raise self._bad(str(error)) from None
        self._waiting = self._inflate.unconsumed_tail
        self._held_back = len(piece) == PIECE
        if self.size + len(piece) > self._most:
            raise self._excess
        if self._inflate.eof:
            self._end(piece)
        else:
            self._found += piece

    def _end(self, piece: bytes) -> None:
        if self._inflate.unused_data or self._at < len(self._view):
            raise self._bad("bytes after its end")
        if self._found:
            self._found += piece
        else:
            self._only = piece
        self.whole = True

    def _bad(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"failed to decompress {self._what}: {why}")

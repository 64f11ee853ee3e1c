"""A header block that comes in several frames (RFC 9113 section 6.10)."""

from __future__ import annotations

from tuili.server.grpc import frames as h2
from tuili.server.grpc.frames import ConnectionFault, expect


class HeaderBlock:
    """What is there of it; `stream` is 0 while none is on its way."""

    __slots__ = ("_ends", "_pieces", "_size", "stream")

    def __init__(self) -> None:
        self.stream = 0
        self._ends = False
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self, stream: int, piece: bytes, *, ends: bool) -> None:
        """HEADERS came without its end; `ends`: the client sends nothing behind it."""
        self.stream, self._ends = stream, ends
        self._pieces, self._size = [piece], len(piece)

    def expects(self, kind: int, stream: int) -> None:
        """ConnectionFault for any frame that comes in between."""
        if self.stream and (kind != h2.CONTINUATION or stream != self.stream):
            raise ConnectionFault(h2.PROTOCOL_ERROR, "header block interrupted")

    def add(self, piece: bytes, most_bytes: int) -> None:
        """One CONTINUATION more."""
        expect(self.stream != 0, h2.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._pieces.append(piece)
        self._size += len(piece)
        expect(self._size <= most_bytes, h2.ENHANCE_YOUR_CALM, "header block too large")

    def take(self) -> tuple[int, bytes, bool]:
        """It is whole: its stream, its bytes, and whether nothing comes behind it."""
        found = self.stream, b"".join(self._pieces), self._ends
        self.stream, self._pieces = 0, []
        return found

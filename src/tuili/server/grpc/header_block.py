"""A header block that comes in several frames (RFC 9113 section 6.10)."""

from __future__ import annotations

from typing import Final

from tuili.server.grpc import frames as h2
from tuili.server.grpc.frames import FRAME_BYTES, ConnectionFault, expect, frame_head

_SPLIT_BYTES: Final = 16 << 10  # of a frame that are worth to be read before the rest is here
_WHOLE_BYTES: Final = 64 << 10  # the most of a frame that has to be taken whole
_OF_BLOCKS: Final = frozenset((h2.HEADERS, h2.CONTINUATION))


class HeaderBlock:
    """Whose frames are coming; `stream` is 0 while there are none."""

    __slots__ = ("_ends", "stream")

    def __init__(self) -> None:
        self.stream = 0
        self._ends = False

    def begin(self, stream: int, *, ends: bool) -> None:
        """HEADERS came without its end; `ends`: the client sends nothing behind it."""
        self.stream, self._ends = stream, ends

    def expects(self, kind: int, stream: int) -> None:
        """ConnectionFault for any frame that comes in between."""
        if self.stream and (kind != h2.CONTINUATION or stream != self.stream):
            raise ConnectionFault(h2.PROTOCOL_ERROR, "header block interrupted")
        wrong = kind == h2.CONTINUATION and not self.stream
        expect(not wrong, h2.PROTOCOL_ERROR, "CONTINUATION without HEADERS")

    def take(self) -> tuple[int, bool]:
        """It is whole: its stream, and whether nothing comes behind it."""
        found = self.stream, self._ends
        self.stream = 0
        return found


def split(data: bytes, at: int) -> bytes:
    """In place of the long frame at `at`, which is not all here, two that say the same.

    The first is whole, a CONTINUATION for the rest begins behind it; nothing where it must wait.
    """
    high, low, kind, flags, number = h2.FRAME_HEAD.unpack_from(data, at)
    here = len(data) - at - FRAME_BYTES
    padded = kind == h2.HEADERS and flags & h2.PADDED
    length = high << 8 | low
    if kind not in _OF_BLOCKS or padded:
        h2.check_length(length, _WHOLE_BYTES)
        return b""
    if here < _SPLIT_BYTES:
        return b""
    ends, left = flags & h2.END_HEADERS, length - here
    first = frame_head(kind, flags & ~h2.END_HEADERS, number, here)
    rest = frame_head(h2.CONTINUATION, ends, number, left)
    return b"".join((first, data[at + FRAME_BYTES :], rest))

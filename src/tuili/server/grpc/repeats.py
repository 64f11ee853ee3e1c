"""Repeat: a whole small call that differs from an earlier one in its stream and tensors only.

Most calls of a client do. Of the two frames that such a call is, all is known but the number of the
stream, which stands in both, and the message: one comparison of bytes takes the place of reading
them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tuili.server.grpc.frames import FRAME_BYTES, PREFIX_BYTES
from tuili.server.grpc.heads import RequestHead

_NUMBER_AT: Final = 5  # in a frame's head


class Repeat(NamedTuple):
    """What stands around the stream's number before the message, and how long all of it is."""

    around: tuple[bytes, bytes, bytes]
    start: int  # of the message
    size: int
    counted: int  # bytes that count against windows: RFC 9113 section 6.9
    head: RequestHead

    def number(self, data: bytes, at: int) -> int:
        """The stream of such a call at `data[at:]`; 0 if there is none, or not all of it."""
        number = data[at + _NUMBER_AT : at + FRAME_BYTES]
        if at + self.size > len(data) or not data.startswith(number.join(self.around), at):
            return 0
        return int.from_bytes(number, "big")


def repeat_of(data: bytes, at: int, second: int, end: int, head: RequestHead) -> Repeat:
    """Of the call at `data[at:end]`, whose second frame begins at `second`."""
    start = second + FRAME_BYTES + PREFIX_BYTES
    middle = data[at + FRAME_BYTES : second + _NUMBER_AT]
    around = data[at : at + _NUMBER_AT], middle, data[second + FRAME_BYTES : start]
    return Repeat(around, start - at, end - at, end - start + PREFIX_BYTES, head)

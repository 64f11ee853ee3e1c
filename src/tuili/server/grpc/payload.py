"""The payload of a DATA frame that did not come whole: handed on piece by piece.

When a large message is under way its stream lends its block as the receive buffer, so that tensors
arrive where they stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuili.server.grpc.stream import GrpcStream


class Payload:
    """What is still to come of one frame, and for whom; `half_close` is told of a stream's end."""

    def __init__(self, half_close: Callable[[GrpcStream], None]) -> None:
        self._half_close = half_close
        self._stream: GrpcStream | None = None
        self.left = 0
        self.padding = 0
        self._ends = False
        self.lent: memoryview | None = None  # where the socket writes next, if a stream lends it

    def begin(self, stream: GrpcStream | None, size: int, padding: int, *, ends: bool) -> None:
        """A frame of `size` bytes and padding begins; without a stream it is thrown away."""
        self._stream, self.left, self.padding, self._ends = stream, size, padding, ends

    def take(self, data: bytes, at: int, end: int) -> int:
        """Consume payload, then padding, from `data[at:end]`; the place after it."""
        if self.left:
            size = min(self.left, end - at)
            if self._stream is not None:
                self._stream.feed(data, at, at + size)
            self.left -= size
        else:
            size = min(self.padding, end - at)
            self.padding -= size
        self._finish_if_whole()
        return at + size

    def lend(self) -> None:
        """Let the socket write on into the block of the message under way, if it is large."""
        if self._stream is not None:
            self.lent = self._stream.space(self.left)

    def filled(self, size: int) -> None:
        """The socket wrote `size` bytes into what was lent."""
        lent, stream = self.lent, self._stream
        assert lent is not None
        assert stream is not None
        self.left -= size
        stream.filled(size)
        self.lent = lent[size:] if size < len(lent) and not stream.over else None
        self._finish_if_whole()

    def forsake(self, stream: GrpcStream) -> None:
        """A stream wants no more: what it lent is its again, the rest of its frame nobody's."""
        if self._stream is stream:
            self._stream = self.lent = None

    def forget(self) -> None:
        """The connection is over."""
        self._stream = self.lent = None

    def _finish_if_whole(self) -> None:
        if self.left or self.padding:
            return
        stream, self._stream = self._stream, None
        if stream is not None and self._ends:
            self._half_close(stream)

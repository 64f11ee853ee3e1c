"""gRPC's length-prefixed messages out of DATA frames, large ones in blocks of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from tuili.errors import InvalidArgument, TooLarge, Unsupported
from tuili.server.grpc.decoding import tensor_offset
from tuili.server.grpc.varints import Buffer
from tuili.server.unpacking import Excess, unpack

_PREFIX: Final = struct.Struct(">BI")
_LARGE: Final = 32 << 10
_LOOK_AHEAD: Final = 1024  # where the description of the tensors ends, as a rule
_WBITS: Final = {"gzip": 15 + 16, "deflate": 15}


def is_one_message(data: bytes, at: int, end: int, limit: int) -> bool:
    """Whether `data[at:end]` is just one small uncompressed message, as nearly all are."""
    size = end - at - 5
    if not 0 <= size < _LARGE or size > limit:
        return False
    return _PREFIX.unpack_from(data, at) == (0, size)


class Assembler:
    """Puts the messages of one call together and gives each to `deliver`."""

    __slots__ = (
        "_block", "_claim", "_compressed", "_deliver", "_encoding", "_filled", "_finished",
        "_limits", "_prefix",
    )  # fmt: skip

    def __init__(
        self,
        encoding: str,
        limits: tuple[int, int, Callable[[int, int], memoryview]],
        deliver: Callable[[Buffer], None],
        claim: Callable[[int], None],
    ) -> None:
        self._encoding = encoding
        self._limits = limits  # message bytes, decompressed bytes, where blocks come from
        self._deliver = deliver
        self._claim = claim  # room for what is unpacked
        self._prefix = b""
        self._block: memoryview | None = None
        self._filled = 0
        self._compressed = False
        self._finished = 0

    @property
    def under_way(self) -> int:
        """The number of the message that has begun and not ended; 0 when none has."""
        return self._finished + 1 if self._block is not None or self._prefix else 0

    @property
    def size(self) -> int:
        """Bytes of the message under way, as far as that is known."""
        return 0 if self._block is None else len(self._block)

    def feed(self, data: bytes, at: int, end: int) -> None:
        """Take `data[at:end]`; TuiliError for what cannot be a message."""
        while at < end:
            if self._block is not None:
                at += self._copy(data, at, end)
                continue
            if not self._prefix and end - at >= 5:
                flag, size = _PREFIX.unpack_from(data, at)
                at += 5
            else:
                taken = 5 - len(self._prefix)
                self._prefix += data[at : min(at + taken, end)]
                at += taken
                if len(self._prefix) < 5:
                    return
                flag, size = _PREFIX.unpack(self._prefix)
                self._prefix = b""
            if size <= end - at:
                self._finish(flag, data[at : at + size], size)
                at += size
            else:
                self._begin(flag, size, data[at : at + _LOOK_AHEAD])

    def _begin(self, flag: int, size: int, start: bytes) -> None:
        """Make room for a message of which only the start is here."""
        self._check(flag, size)
        self._compressed = flag == 1
        if size < _LARGE:
            self._block = memoryview(bytearray(size))
        else:
            self._block = self._limits[2](size, tensor_offset(start))
        self._filled = 0

    def _copy(self, data: bytes, at: int, end: int) -> int:
        block = self._block
        assert block is not None
        taken = min(end - at, len(block) - self._filled)
        block[self._filled : self._filled + taken] = memoryview(data)[at : at + taken]
        self.filled(taken)
        return taken

    def space(self, most: int) -> memoryview | None:
        """Where the socket may write the next `most` bytes of a large message by itself."""
        block = self._block
        if block is None or len(block) < _LARGE:
            return None
        return block[self._filled : self._filled + most]

    def filled(self, size: int) -> None:
        """Note that `size` bytes were written into the present block."""
        block = self._block
        assert block is not None
        self._filled += size
        if self._filled == len(block):
            self._block = None
            self._finish(1 if self._compressed else 0, block, len(block))

    def _finish(self, flag: int, message: Buffer, size: int) -> None:
        self._check(flag, size)
        self._finished += 1
        self._deliver(self._decompress(message) if flag else message)

    def _check(self, flag: int, size: int) -> None:
        limit = self._limits[0]
        if size > limit:
            raise TooLarge(f"Received message larger than max ({size} vs. {limit})")
        if flag and (flag != 1 or self._encoding == "identity"):
            raise InvalidArgument(f"message with compression flag {flag}, but no grpc-encoding")

    def _decompress(self, message: Buffer) -> Buffer:
        wbits = _WBITS.get(self._encoding)
        if wbits is None:
            raise Unsupported(f"Compression algorithm '{self._encoding}' is not supported")
        try:
            return unpack(message, wbits, self._limits[1], self._claim, "the message")
        except Excess:
            limit = self._limits[1]
            raise TooLarge(f"Decompressed message larger than max ({limit} bytes)") from None

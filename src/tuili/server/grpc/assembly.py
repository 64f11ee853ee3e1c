"""gRPC's length-prefixed messages out of DATA frames, large ones in blocks of their own."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tuili.errors import InvalidArgument, TooLarge, TuiliError, Unsupported
from tuili.server.grpc.decoding import tensor_offset
from tuili.server.grpc.varints import Buffer
from tuili.server.unpackers import Unpacked, Unpackers
from tuili.server.unpacking import Unpacking

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


@dataclass(slots=True)
class Assembly:
    """What the assemblers of one front end share."""

    most_bytes: int
    most_unpacked: int
    take_block: Callable[[int, int], memoryview]
    unpackers: Unpackers = field(default_factory=Unpackers)
    loop: asyncio.AbstractEventLoop | None = None  # once it listens


class Assembler:
    """Puts the messages of one call together and gives each to `deliver`, in order.

    Where one is much to unpack, it and those behind it come later; then `caught_up` is told so, or
    the error that came of it. `claim` takes room for what is unpacked.
    """

    __slots__ = (
        "_behind", "_block", "_caught_up", "_claim", "_compressed", "_deliver", "_encoding",
        "_filled", "_finished", "_prefix", "_shared", "_unpacking",
    )  # fmt: skip

    def __init__(
        self,
        encoding: str,
        shared: Assembly,
        deliver: Callable[[Buffer], None],
        claim: Callable[[int], None],
        caught_up: Callable[[TuiliError | None], None],
    ) -> None:
        self._encoding = encoding
        self._shared = shared
        self._deliver = deliver
        self._claim = claim
        self._caught_up = caught_up
        self._unpacking: asyncio.Future[Unpacked] | None = None
        self._behind: deque[tuple[int, Buffer]] = deque()  # flags and messages
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

    @property
    def behind(self) -> bool:
        """Whether messages that are whole have not been delivered yet."""
        return self._unpacking is not None or bool(self._behind)

    def cancel(self) -> None:
        """Nobody waits for what is behind."""
        self._behind.clear()
        if self._unpacking is not None:
            self._unpacking.cancel()

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
            self._block = self._shared.take_block(size, tensor_offset(start))
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
        if self.behind:
            self._behind.append((flag, message))
        else:
            self._hand_on(flag, message)

    def _hand_on(self, flag: int, message: Buffer) -> None:
        if flag:
            unpackers, loop = self._shared.unpackers, self._shared.loop
            found = unpackers.unpack(self._unpacking_of(message), self._claim, loop)
            if isinstance(found, asyncio.Future):
                self._unpacking = found
                found.add_done_callback(self._unpacked)
                return
            message = found
        self._deliver(message)

    def _unpacked(self, found: asyncio.Future[Unpacked]) -> None:
        """Deliver a message that was much, and those behind it."""
        self._unpacking = None
        if found.cancelled():
            return
        try:
            self._deliver(found.result())
            while self._behind and self._unpacking is None:
                self._hand_on(*self._behind.popleft())
        except TuiliError as error:
            self._caught_up(error)
            return
        if not self.behind:
            self._caught_up(None)

    def _check(self, flag: int, size: int) -> None:
        limit = self._shared.most_bytes
        if size > limit:
            raise TooLarge(f"Received message larger than max ({size} vs. {limit})")
        if flag and (flag != 1 or self._encoding == "identity"):
            raise InvalidArgument(f"message with compression flag {flag}, but no grpc-encoding")

    def _unpacking_of(self, message: Buffer) -> Unpacking:
        wbits = _WBITS.get(self._encoding)
        if wbits is None:
            raise Unsupported(f"Compression algorithm '{self._encoding}' is not supported")
        most = self._shared.most_unpacked
        excess = TooLarge(f"Decompressed message larger than max ({most} bytes)")
        return Unpacking(message, wbits, most, "the message", excess)

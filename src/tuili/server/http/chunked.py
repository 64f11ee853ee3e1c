"""The chunked transfer coding (RFC 9112 section 7.1), decoded as the bytes come."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tuili.server.http.head import BadHead

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_PLAIN_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")
_MAX_LINE: Final = 1024
_MAX_TRAILER: Final = 8192


class ChunkedBody:
    """Collects one chunked body; `done` turns true with the last byte of it.

    `feed` takes whatever bytes arrived and returns how many of them belong to this body, so that
    the start of a pipelined request is left alone.
    """

    def __init__(self, max_bytes: int, max_chunks: int) -> None:
        self.data = bytearray()
        self.done = False
        self._max_bytes = max_bytes
        self._max_chunks = max_chunks
        self._chunks_left = max_chunks
        self._line = bytearray()
        self._trailer_bytes = 0
        self._missing = 0  # bytes of the present chunk still to come
        # A function, not a method: that would keep the body alive until the next collection.
        self._state: _State = ChunkedBody._size_line

    def feed(self, data: bytes | memoryview) -> int:
        """Consume the part of `data` that belongs to this body; its length is returned."""
        used = 0
        while used < len(data) and not self.done:
            if self._state is ChunkedBody._size_line and not self._line:
                used = self._whole_chunks(data, used)
            used = self._state(self, data, used)
        return used

    def _whole_chunks(self, data: bytes | memoryview, at: int) -> int:
        """Take chunks without anything odd, as nearly all are: there may be thousands."""
        view, left = memoryview(data), self._chunks_left
        while left and (line := _PLAIN_LINE.match(view, at)) is not None:
            start, size = line.end(), int(line[1], 16)
            stop = start + size
            if not size or bytes(view[stop : stop + 2]) != b"\r\n":
                break
            if len(self.data) + size > self._max_bytes:
                break
            self.data += view[start:stop]
            at, left = stop + 2, left - 1
        self._chunks_left = left
        return at

    def _size_line(self, data: bytes | memoryview, at: int) -> int:
        line, at = self._take_line(data, at)
        if line is None:
            return at
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadHead(400, "malformed chunk size")
        size = int(match[1], 16)
        if size == 0:
            self._state = ChunkedBody._trailer
            return at
        self._chunks_left -= 1
        if self._chunks_left < 0:
            raise BadHead(
                400,
                f"Chunked request body exceeds maximum of {self._max_chunks} non-empty chunks."
                " Send fewer or larger HTTP chunks.",
            )
        if len(self.data) + size > self._max_bytes:
            raise BadHead(413, f"request body exceeds the limit of {self._max_bytes} bytes")
        self._missing = size
        self._state = ChunkedBody._chunk_data
        return at

    def _chunk_data(self, data: bytes | memoryview, at: int) -> int:
        piece = data[at : at + self._missing]
        self.data += piece
        self._missing -= len(piece)
        if self._missing == 0:
            self._state = ChunkedBody._chunk_end
        return at + len(piece)

    def _chunk_end(self, data: bytes | memoryview, at: int) -> int:
        line, at = self._take_line(data, at)
        if line is None:
            return at
        if line:
            raise BadHead(400, "chunk is longer than its size says")
        self._state = ChunkedBody._size_line
        return at

    def _trailer(self, data: bytes | memoryview, at: int) -> int:
        # Trailer fields are read and dropped: none has a meaning here.
        line, at = self._take_line(data, at)
        if line is None:
            return at
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILER:
            raise BadHead(431, "trailer section too large")
        self.done = not line
        return at

    def _take_line(self, data: bytes | memoryview, at: int) -> tuple[bytes | None, int]:
        """The line ending in `data` (without CRLF) or None, and the place after what was read."""
        window = bytes(data[at : at + _MAX_LINE + 2])
        end = window.find(b"\n")
        if end < 0:
            self._line += window
            if len(self._line) > _MAX_LINE:
                raise BadHead(400, "chunk line too long")
            return None, at + len(window)
        line = bytes(self._line) + window[: end + 1]
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise BadHead(400, "chunk line ends in a bare LF")
        return line[:-2], at + end + 1


_State = Callable[[ChunkedBody, bytes | memoryview, int], int]

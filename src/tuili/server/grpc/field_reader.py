"""The fields of a header block (RFC 7541), read piece by piece.

Fields that are too large together end their call, not its connection.  They are therefore read to
their end without being kept: what they do to the dynamic table holds for the calls behind them.
"""

from __future__ import annotations

from typing import Final

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from tuili.server.grpc.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    ConnectionFault,
    expect,
)

_OVERHEAD: Final = 32  # of a field, section 4.1
_MOST_FIELDS: Final = 16 << 10
_MOST_NAME_BYTES: Final = 16 << 10
_MOST_RESIZES: Final = 2  # section 4.2
_MOST_BITS: Final = 28  # of an integer, behind its prefix
_TOO_LARGE: Final = "header block too large"


class FieldReader:
    """One block: `feed` takes its pieces, `end` says that there was the last one."""

    def __init__(self, table: HeaderTable, max_bytes: int, most_bytes: int) -> None:
        """Above `max_bytes` nothing is kept; above `most_bytes` the connection ends."""
        self._table = table
        self._max_bytes = max_bytes
        self._most_bytes = most_bytes
        self.fields: list[tuple[bytes, bytes]] = []  # none where `size` is above `max_bytes`
        self.size = 0  # of all fields; of those that were passed over as it came
        self._count = self._resizes = self._received = 0
        self._rest = b""  # of a field that is not whole
        self._skip = 0  # bytes to come of a value that nobody wants

    def feed(self, piece: bytes) -> None:
        """Take what comes next."""
        self._received += len(piece)
        expect(self._received <= self._most_bytes, ENHANCE_YOUR_CALM, _TOO_LARGE)
        data = self._rest + piece if self._rest else piece
        at, end = self._skip, len(data)
        try:
            while at < end:
                at = self._field(data, at)
        except IndexError:
            pass  # the field at `at` is not whole
        except (HPACKError, ValueError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"header block: {error}") from None
        self._skip = max(at - end, 0)
        self._rest = data[at:]

    def end(self) -> None:
        """There is no more: ConnectionFault when a field is not whole."""
        expect(not (self._rest or self._skip), COMPRESSION_ERROR, "header block: cut off")

    def _field(self, data: bytes, at: int) -> int:
        """Take the field at `at`; where it ends, which may be beyond `data`.

        IndexError while it is not whole, as long as nothing has come of it.
        """
        first = data[at]
        if first & 0x80:  # section 6.1
            index, stop = _integer(data, at, 0x7F)
            self._take(*self._table.get_by_index(index))
        elif first & 0xE0 == 0x20:  # section 6.3
            size, stop = _integer(data, at, 0x1F)
            self._resize(size)
        else:  # section 6.2
            enters = bool(first & 0x40)
            index, stop = _integer(data, at, 0x3F if enters else 0x0F)
            if index:
                name, _ = self._table.get_by_index(index)
            else:
                name, stop = _name(data, stop)
            stop = self._value(data, stop, name, enters=enters)
        return stop

    def _value(self, data: bytes, at: int, name: bytes, *, enters: bool) -> int:
        """Take the value of a literal, which `enters` the table; where it ends."""
        coded = data[at] & 0x80
        length, start = _integer(data, at, 0x7F)
        stop = start + length
        own = len(name) + _OVERHEAD
        # Section 5.2: Huffman's longest code has 30 bits.
        fits = own + (length * 4 // 15 if coded else length) <= self._table.maxsize
        if self.size + own + length <= self._max_bytes or (enters and fits):
            value = _string(data, start, stop, coded)
            if enters:
                self._table.add(name, value)
            self._take(name, value)
        else:
            if enters:  # section 4.4: what is larger than the table empties it
                self._table.add(name, bytes(self._table.maxsize))
            self._count_in(own + length)
        return stop

    def _take(self, name: bytes, value: bytes) -> None:
        self._count_in(len(name) + len(value) + _OVERHEAD)
        if self.size <= self._max_bytes:
            self.fields.append((name, value))

    def _count_in(self, size: int) -> None:
        self._count += 1
        self.size += size
        if self.size > self._max_bytes:
            self.fields.clear()
            within = self._count <= _MOST_FIELDS and self.size <= self._most_bytes
            expect(within, ENHANCE_YOUR_CALM, _TOO_LARGE)

    def _resize(self, size: int) -> None:
        self._resizes += 1
        if self._count or self._resizes > _MOST_RESIZES or size > HeaderTable.DEFAULT_SIZE:
            raise ConnectionFault(COMPRESSION_ERROR, "header block: wrong size of the table")
        self._table.maxsize = size


def _integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """The integer (section 5.1) whose prefix are the bits of `mask` at `at`, and where it ends."""
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    bits = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << bits
        if byte < 0x80:
            return value, at
        bits += 7
        if bits > _MOST_BITS:
            raise ValueError("an integer is too large")


def _name(data: bytes, at: int) -> tuple[bytes, int]:
    """The name at `at`, and where it ends."""
    length, start = _integer(data, at, 0x7F)
    expect(length <= _MOST_NAME_BYTES, ENHANCE_YOUR_CALM, "a field's name is too long")
    stop = start + length
    return _string(data, start, stop, data[at] & 0x80), stop


def _string(data: bytes, start: int, stop: int, coded: int) -> bytes:
    """The string between two places (section 5.2)."""
    if stop > len(data):
        raise IndexError(stop)
    text = data[start:stop]
    return decode_huffman(text) if coded else text

"""Long messages: read piece by piece, so that others have their turn.

protobuf reads a message in one go, and what it found is Python's in another: a second for sixteen
megabytes. So a message is cut between its fields, and long packed ones between their numbers.
protobuf reads each piece; the pieces one after the other mean what the whole does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from tuili.errors import InternalError, InvalidArgument
from tuili.server.grpc.varints import MOST_FIELDS, Buffer, append_varint, varint

LONG_BYTES: Final = 64 << 10  # of a message, from which on it is read so
_PIECE_BYTES: Final = 32 << 10
_PIECE_FIELDS: Final = 4096
_LONGEST_VARINT: Final = 10
_DELIMITED: Final = 2  # the wire type of texts, messages and packed numbers
_FIXED: Final = {1: 8, 5: 4}  # the wire types of numbers of so many bytes
# How many bytes a number of a packed field has; all other types are varints.
_WIDTHS: Final = {
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_DOUBLE: 8,
}
_MALFORMED: Final = "malformed message: {}"
_TOO_EARLY: Final = "it ends too early"


class Field(NamedTuple):
    """One field: its tag, where it begins, and where its content does and ends."""

    tag: int
    at: int
    start: int
    stop: int


def delimited(number: int) -> int:
    """The tag of a field of text, of a message, or of packed numbers."""
    return number << 3 | _DELIMITED


def packed_fields(kind: Any) -> dict[int, int]:
    """The tags of a message's packed fields, and how many bytes a number has (0: varints)."""
    return {
        delimited(field.number): _WIDTHS.get(field.type, 0)
        for field in kind.DESCRIPTOR.fields
        if field.is_packed
    }


def field_at(message: Buffer, at: int, end: int) -> Field:
    """The field at `at` of a message that ends at `end`; InternalError where none is."""
    try:
        tag, start = varint(message, at)
        kind = tag & 7
        if kind == _DELIMITED:
            size, start = varint(message, start)
            stop = start + size
        elif kind in _FIXED:
            stop = start + _FIXED[kind]
        elif kind == 0:
            stop = varint(message, start)[1]
        else:
            raise InternalError(_MALFORMED.format(f"unexpected field tag {tag:#x}"))
    except IndexError:
        raise InternalError(_MALFORMED.format(_TOO_EARLY)) from None
    if stop > end:
        raise InternalError(_MALFORMED.format(_TOO_EARLY))
    return Field(tag, at, start, stop)


class Walk:
    """Looks at the fields of messages in each other, at so many of them in all."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._left = MOST_FIELDS

    def fields(self, message: Buffer, at: int, end: int) -> Iterator[Field]:
        """One field after the other; InvalidArgument when they are too many."""
        while at < end:
            found = field_at(message, at, end)
            self._left -= 1
            if self._left < 0:
                raise InvalidArgument(f"a {self._what} of more than {MOST_FIELDS} fields")
            yield found
            at = found.stop


def cut(message: memoryview, packed: Mapping[int, int]) -> Iterator[bytes]:
    """A message in pieces that are messages; `packed` are its packed fields."""
    begun = at = count = 0
    end = len(message)
    while at < end:
        tag = message[at]
        # Short texts, of which there may be millions.
        if tag & 0x87 == _DELIMITED and at + 1 < end and message[at + 1] < 0x80:
            stop = at + 2 + message[at + 1]
        else:
            field = field_at(message, at, end)
            stop = field.stop
            if stop - at > _PIECE_BYTES and field.tag in packed:
                if begun < at:
                    yield bytes(message[begun:at])
                yield from _numbers(message[at : field.stop], field, packed[field.tag])
                begun, at, count = stop, stop, 0
                continue
        count += 1
        if stop - begun >= _PIECE_BYTES or count == _PIECE_FIELDS:
            if stop > end:
                raise InternalError(_MALFORMED.format(_TOO_EARLY))
            yield bytes(message[begun:stop])
            begun, count = stop, 0
        at = stop
    if begun < end:
        if at > end:
            raise InternalError(_MALFORMED.format(_TOO_EARLY))
        yield bytes(message[begun:end])


def read_pieces(
    kind: Any, found: list[memoryview], packed: Mapping[int, int], what: str
) -> Iterator[Any]:
    """Messages of a kind that mean together what those found in a `what` do."""
    for message in found:
        for piece in cut(message, packed):
            try:
                yield kind.FromString(piece)
            except DecodeError as error:
                raise InternalError(f"malformed {what}: {error}") from None


def _numbers(packed: memoryview, field: Field, width: int) -> Iterator[bytes]:
    """A packed field in pieces that are packed fields."""
    at, end = field.start - field.at, len(packed)
    while at < end:
        stop = min(at + _PIECE_BYTES, end)
        if not width and stop < end:
            # One without an end is protobuf's to refuse.
            stop -= next((n for n in range(_LONGEST_VARINT) if packed[stop - n - 1] < 0x80), 0)
        head = bytearray()
        append_varint(head, field.tag)
        append_varint(head, stop - at)
        yield bytes(head) + packed[at:stop]
        at = stop

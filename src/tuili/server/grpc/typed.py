"""Typed contents: numbers in protobuf's own fields, cut out so that like messages are the same.

What is left of a message without its id and its inputs' contents are its *words*: fields that are
read one after the other, each with its size before it, so that equal words mean the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError

from tuili.errors import InvalidArgument
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.varints import MOST_FIELDS, Buffer, varint
from tuili.server.protocol.messages import InputTensor

_ID: Final = 0x1A  # field 3, length-delimited
_INPUT: Final = 0x2A  # field 5, length-delimited
_AROUND: Final = frozenset((0x0A, 0x12, 0x22, 0x32))  # model, version, parameters, outputs
_CONTENTS: Final = 0x2A  # field 5 of an input
_WITHIN: Final = frozenset((0x0A, 0x12, 0x1A, 0x22))  # name, datatype, shape, parameters
_SIZE_BYTES: Final = 4  # of the size that stands before an input in the words
_MAX_ID: Final = 0x80

_Contents: Final = INFERENCE["InferTensorContents"]


class _Field(NamedTuple):
    """Where the numbers of a datatype stand, and `struct`'s code if they are not as in memory."""

    tag: int
    name: str
    code: str | None


# Numbers of a fixed size lie in a packed field as they lie in memory; the others are varints.
_FIELDS: Final = {
    "BOOL": _Field(0x0A, "bool_contents", "?"),
    "INT8": _Field(0x12, "int_contents", "b"),
    "INT16": _Field(0x12, "int_contents", "h"),
    "INT32": _Field(0x12, "int_contents", "i"),
    "INT64": _Field(0x1A, "int64_contents", "q"),
    "UINT8": _Field(0x22, "uint_contents", "B"),
    "UINT16": _Field(0x22, "uint_contents", "H"),
    "UINT32": _Field(0x22, "uint_contents", "I"),
    "UINT64": _Field(0x2A, "uint64_contents", "Q"),
    "FP32": _Field(0x32, "fp32_contents", None),
    "FP64": _Field(0x3A, "fp64_contents", None),
}


class Slot(msgspec.Struct, gc=False):
    """An input that comes as contents; `pack` makes bytes of its numbers, if it takes that."""

    field: _Field
    size_bytes: int
    pack: Callable[..., bytes] | None


class Cut(NamedTuple):
    """A message's words, its id, and where the contents of each input lie."""

    words: bytes
    ident: str
    contents: list[tuple[int, int]]


def cut(message: Buffer) -> Cut | None:
    """The words and contents of a message; None when some input has none, or it is odd."""
    words = bytearray()
    contents: list[tuple[int, int]] = []
    ident, at, done, end = "", 0, 0, len(message)
    try:
        while at < end:
            tag = message[at]
            start, stop = _extent(message, at, end)
            if tag == _INPUT:
                field, inside = _contents_of(message, start, stop)
                beyond = inside[1]
                words += message[done : at + 1]
                words += (stop - start - beyond + field).to_bytes(_SIZE_BYTES, "big")
                words += message[start:field]
                contents.append(inside)
                if len(contents) > MOST_FIELDS:
                    return None
                done = beyond
            elif tag == _ID:
                if ident:
                    return None
                ident = _plain_text(message[start:stop])
                words += message[done:at]
                done = stop
            elif tag not in _AROUND:
                return None
            at = stop
    except (IndexError, ValueError, OverflowError, InvalidArgument):
        return None
    words += message[done:]
    return Cut(bytes(words), ident, contents) if contents else None


def _extent(message: Buffer, at: int, end: int) -> tuple[int, int]:
    """Where the content of the field at `at` begins and ends; ValueError if beyond `end`."""
    size, start = message[at + 1], at + 2
    if size > 0x7F:
        size, start = varint(message, at + 1)
    stop = start + size
    if stop > end:
        raise ValueError(stop)
    return start, stop


def _contents_of(message: Buffer, at: int, end: int) -> tuple[int, tuple[int, int]]:
    """Where the one field of contents of an input begins, and the contents in it."""
    found: tuple[int, tuple[int, int]] | None = None
    left = MOST_FIELDS
    while at < end and left:
        left -= 1
        tag = message[at]
        start, stop = _extent(message, at, end)
        if tag == _CONTENTS and found is None:
            found = at, (start, stop)
        elif tag not in _WITHIN:
            raise ValueError(tag)
        at = stop
    if found is None or not left:
        raise ValueError(end)
    return found


def _plain_text(ident: Buffer) -> str:
    """An id that is as long in bytes as in letters; ValueError for any other."""
    text = bytes(ident).decode("ascii")
    if not 0 < len(text) < _MAX_ID:
        raise ValueError(text)
    return text


def slots_of(inputs: Sequence[InputTensor]) -> tuple[Slot, ...] | None:
    """How to read the contents of these inputs; None if some datatype has none that are numbers."""
    found: list[Slot] = []
    for each in inputs:
        field = _FIELDS.get(each.datatype)
        if field is None or each.data is None:
            return None
        pack = struct.Struct(f"<{prod(each.shape)}{field.code}").pack if field.code else None
        found.append(Slot(field, each.data.nbytes, pack))
    return tuple(found)


def raw_of(
    slots: Sequence[Slot], message: Buffer, contents: Sequence[tuple[int, int]]
) -> Buffer | None:
    """The bytes of the inputs' tensors, one after the other; None if some are not right."""
    if len(slots) != len(contents):
        return None
    try:
        parts = [
            _tensor(slot, message, start, stop)
            for slot, (start, stop) in zip(slots, contents, strict=True)
        ]
    except (IndexError, ValueError, struct.error, InvalidArgument, DecodeError):
        return None  # the long way tells what is wrong
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _tensor(slot: Slot, message: Buffer, at: int, end: int) -> Buffer:
    """The bytes of one tensor, whose contents are one packed field."""
    field = slot.field
    start, stop = _extent(message, at, end)
    if message[at] != field.tag or stop != end:
        raise ValueError(at)
    if slot.pack is None:
        if stop - start != slot.size_bytes:
            raise ValueError(stop)
        return message[start:stop]
    values: Any = getattr(_Contents.FromString(bytes(message[at:end])), field.name)
    return slot.pack(*values)

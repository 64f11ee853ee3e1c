"""Varints, as protobuf writes the sizes of its fields."""

from __future__ import annotations

from typing import Final

from tuili.errors import InvalidArgument

Buffer = bytes | bytearray | memoryview

# Of a ModelInferRequest: its inputs, outputs, parameters and raw tensors together. Millions of
# them fit into a message, and whatever looks at them holds up all other clients meanwhile.
MOST_FIELDS: Final = 16_384


def varint(data: Buffer, at: int) -> tuple[int, int]:
    """The varint at `at` and the place after it."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise InvalidArgument("malformed ModelInferRequest: varint too long")


def append_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)

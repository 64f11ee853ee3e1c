"""Typed contents of a long ModelInferRequest, taken out of it to be read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tuili.errors import InvalidArgument
from tuili.server.grpc.long_message import Walk, delimited, packed_fields, read_pieces
from tuili.server.grpc.schema import INFERENCE
from tuili.server.grpc.varints import append_varint

_REQUEST: Final = "ModelInferRequest"
_INPUT: Final = delimited(5)
_NESTED: Final = frozenset((delimited(4), delimited(6)))  # parameters and outputs
_SHAPE: Final = delimited(3)  # of an input
_CONTENTS: Final = delimited(5)
_MOST_SHAPE_BYTES: Final = 320  # 32 dims, which are the most that a tensor has

_Contents: Final = INFERENCE["InferTensorContents"]
_PACKED: Final = packed_fields(_Contents)


def without_contents(request: bytes) -> tuple[bytes, list[Iterator[Any] | None]]:
    """A request without its inputs' contents, and these by input, as `plan_request` takes them."""
    walk = Walk(_REQUEST)
    view = memoryview(request)
    rest = bytearray()
    contents: list[Iterator[Any] | None] = []
    for field in walk.fields(request, 0, len(request)):
        if field.tag != _INPUT:
            if field.tag in _NESTED:
                for _ in walk.fields(request, field.start, field.stop):
                    pass
            rest += view[field.at : field.stop]
            continue
        kept, found = _parted(walk, view[field.start : field.stop])
        append_varint(rest, _INPUT)
        append_varint(rest, len(kept))
        rest += kept
        contents.append(read_pieces(_Contents, found, _PACKED, _REQUEST) if found else None)
    return bytes(rest), contents


def _parted(walk: Walk, given: memoryview) -> tuple[bytearray, list[memoryview]]:
    """An input without its contents, and these."""
    kept = bytearray()
    found: list[memoryview] = []
    for field in walk.fields(given, 0, len(given)):
        if field.tag == _CONTENTS:
            found.append(given[field.start : field.stop])
            continue
        if field.tag == _SHAPE and field.stop - field.start > _MOST_SHAPE_BYTES:
            raise InvalidArgument("invalid shape for an input: it has more than 32 dims")
        kept += given[field.at : field.stop]
    return kept, found

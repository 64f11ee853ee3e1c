"""A long PredictRequest: its tensors are taken out of it, to be read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tuili.errors import InternalError
from tuili.server.grpc.long_message import Walk, delimited, packed_fields, read_pieces
from tuili.server.grpc.schema import SERVING

_REQUEST: Final = "PredictRequest"
_INPUTS: Final = delimited(2)
_KEY, _VALUE = delimited(1), delimited(2)  # of an entry of a map

_Tensor: Final = SERVING["TensorProto"]
_PACKED: Final = packed_fields(_Tensor)
Tensors = dict[str, Iterator[Any]]


def without_tensors(request: bytes) -> tuple[bytes, Tensors]:
    """A request without its inputs, and these by name, as `read_tensor` takes them."""
    walk = Walk(_REQUEST)
    view = memoryview(request)
    rest = bytearray()
    tensors: Tensors = {}
    for field in walk.fields(request, 0, len(request)):
        if field.tag == _INPUTS:
            name, found = _entry(walk, view[field.start : field.stop])
            # Of one name the last, as protobuf has it.
            tensors[name] = read_pieces(_Tensor, found, _PACKED, _REQUEST)
        else:
            rest += view[field.at : field.stop]
    return bytes(rest), tensors


def _entry(walk: Walk, entry: memoryview) -> tuple[str, list[memoryview]]:
    name = b""
    found: list[memoryview] = []
    for field in walk.fields(entry, 0, len(entry)):
        if field.tag == _KEY:
            name = bytes(entry[field.start : field.stop])
        elif field.tag == _VALUE:
            found.append(entry[field.start : field.stop])
    try:
        return name.decode(), found
    except UnicodeDecodeError:
        raise InternalError(f"malformed {_REQUEST}: a name is not UTF-8") from None

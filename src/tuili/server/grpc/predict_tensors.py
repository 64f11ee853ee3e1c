"""TensorFlow's `TensorProto`, to tensors and back.

Values are in a field of their type, or for a client's inputs as raw bytes in `tensor_content`. A
field with fewer values than the shape has elements repeats its last one, or is zeros where it has
none, as in TensorFlow's tensor.cc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.grpc.schema import SERVING
from tuili.server.protocol.datatypes import NUMPY, TURN_ELEMENTS, decode, element_count
from tuili.server.protocol.messages import Array, InputTensor, OutputTensor
from tuili.server.steps import Steps, at_once
from tuili.server.tensorflow_serving import TYPES

# Halves travel as the 16 bits of each, in an int32.
_HALVES: Final = frozenset(("FP16", "BF16"))
_FIELDS: Final[dict[str, str]] = {
    "FP32": "float_val", "FP64": "double_val", "INT32": "int_val", "UINT8": "int_val",
    "INT16": "int_val", "INT8": "int_val", "UINT16": "int_val", "BYTES": "string_val",
    "INT64": "int64_val", "BOOL": "bool_val", "UINT32": "uint32_val", "UINT64": "uint64_val",
    **dict.fromkeys(_HALVES, "half_val"),
}  # fmt: skip
# What NumPy makes of the values of a field.
_KINDS: Final[dict[str, Any]] = {
    "float_val": np.float32, "double_val": np.float64, "int_val": np.int32, "half_val": np.int32,
    "string_val": np.object_, "int64_val": np.int64, "bool_val": np.bool_,
    "uint32_val": np.uint32, "uint64_val": np.uint64,
}  # fmt: skip
_DATATYPES: Final = {kind.number: name for name, kind in TYPES.items()}

Message = Any


def tensor_of(name: str, proto: Message) -> InputTensor:
    """An input of a model; InvalidArgument where shape and values do not fit each other."""
    return at_once(read_tensor(name, (proto,)))


def read_tensor(name: str, pieces: Iterable[Message]) -> Steps[InputTensor]:
    """The same of messages that mean together what a tensor's does, with turns for others."""
    proto, values = yield from _merged(name, pieces)
    datatype = _DATATYPES.get(proto.dtype)
    if datatype is None:
        known = ", ".join(f"{kind.name} ({kind.number})" for kind in TYPES.values())
        raise InvalidArgument(
            f"input '{name}' has the dtype {proto.dtype}, expected one of {known}"
        )
    if proto.tensor_shape.unknown_rank:
        raise InvalidArgument(f"input '{name}' has a shape of unknown rank")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if not proto.tensor_content:
        parts = values.get(_FIELDS[datatype], [])
        array = yield from _from_field(name, datatype, shape, parts)
        return InputTensor(name, datatype, shape, array)
    if datatype == "BYTES":
        raise InvalidArgument(f"input '{name}': strings are expected in string_val")
    return InputTensor(name, datatype, shape, decode(name, datatype, shape, proto.tensor_content))


def _merged(name: str, pieces: Iterable[Message]) -> Steps[tuple[Message, dict[str, list[Array]]]]:
    """What pieces of a tensor say beside its values, and these by their field."""
    whole = SERVING["TensorProto"]()
    values: dict[str, list[Array]] = {}
    for at, piece in enumerate(pieces):
        if at:
            yield
        for field, found in piece.ListFields():
            kind = _KINDS.get(field.name)
            if kind is not None:
                part = np.fromiter(found, kind, len(found))
                values.setdefault(field.name, []).append(part)
            else:
                whole.MergeFrom(SERVING["TensorProto"](**{field.name: found}))
        element_count([1] * len(whole.tensor_shape.dim))  # before there are millions of dims
    return whole, values


def _from_field(
    name: str, datatype: str, shape: tuple[int, ...], parts: list[Array]
) -> Steps[Array]:
    field, count = _FIELDS[datatype], element_count(shape)
    given = sum(map(len, parts))
    if given > count:
        raise InvalidArgument(
            f"input '{name}' of shape {list(shape)} takes {count} values at most, found "
            f"{given} in {field}"
        )
    flat = np.empty(count, NUMPY[datatype])
    at = 0
    for part in parts:
        if at:
            yield
        flat[at : at + len(part)] = _array_of(name, datatype, part)
        at += len(part)
    if given < count:
        flat[given:] = flat[given - 1] if given else _zero(datatype)
    return flat.reshape(shape)


def _zero(datatype: str) -> bytes | int:
    return b"" if datatype == "BYTES" else 0


def _array_of(name: str, datatype: str, part: Array) -> Array:
    if datatype == "BYTES":
        return part
    kind = np.dtype(np.uint16) if datatype in _HALVES else NUMPY[datatype]
    if kind.kind in "iu" and len(part):
        bounds = np.iinfo(kind)
        least, most = int(part.min()), int(part.max())
        if least < bounds.min or most > bounds.max:
            wrong = least if least < bounds.min else most
            raise InvalidArgument(f"input '{name}' has a value out of range: {wrong}")
    return part.astype(kind, copy=False).view(NUMPY[datatype])


def write_tensor(output: OutputTensor) -> Steps[bytes]:
    """An output of a model as a serialized message, its values in the field of its type."""
    assert output.data is not None  # no such request asks for shared memory
    proto = SERVING["TensorProto"](dtype=TYPES[output.datatype].number)
    for size in output.shape:
        proto.tensor_shape.dim.add(size=size)
    parts: list[bytes] = [proto.SerializeToString()]
    array = output.data.reshape(-1)
    if output.datatype in _HALVES:
        array = array.view(np.uint16)
    for at in range(0, array.size, TURN_ELEMENTS):
        if at:
            yield
        values = array[at : at + TURN_ELEMENTS].tolist()
        if output.datatype == "BYTES":
            values = [item.encode() if isinstance(item, str) else item for item in values]
        part = SERVING["TensorProto"](**{_FIELDS[output.datatype]: values})
        parts.append(part.SerializeToString())
    return b"".join(parts)

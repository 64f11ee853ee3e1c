"""TensorFlow's `TensorProto`, to tensors and back.

Values are in a field of their type, or for a client's inputs as raw bytes in `tensor_content`. A
field with fewer values than the shape has elements repeats its last one, or is zeros where it has
none, as in TensorFlow's tensor.cc.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tuili.errors import InvalidArgument
from tuili.server.grpc.schema import SERVING
from tuili.server.protocol.datatypes import NUMPY, decode, element_count
from tuili.server.protocol.messages import Array, InputTensor, OutputTensor
from tuili.server.tensorflow_serving import TYPES

# Halves travel as the 16 bits of each, in an int32.
_HALVES: Final = frozenset(("FP16", "BF16"))
_FIELDS: Final[dict[str, str]] = {
    "FP32": "float_val", "FP64": "double_val", "INT32": "int_val", "UINT8": "int_val",
    "INT16": "int_val", "INT8": "int_val", "UINT16": "int_val", "BYTES": "string_val",
    "INT64": "int64_val", "BOOL": "bool_val", "UINT32": "uint32_val", "UINT64": "uint64_val",
    **dict.fromkeys(_HALVES, "half_val"),
}  # fmt: skip
_DATATYPES: Final = {kind.number: name for name, kind in TYPES.items()}

Message = Any


def tensor_of(name: str, proto: Message) -> InputTensor:
    """An input of a model; InvalidArgument where shape and values do not fit each other."""
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
        return InputTensor(name, datatype, shape, _from_field(name, datatype, shape, proto))
    if datatype == "BYTES":
        raise InvalidArgument(f"input '{name}': strings are expected in string_val")
    return InputTensor(name, datatype, shape, decode(name, datatype, shape, proto.tensor_content))


def _from_field(name: str, datatype: str, shape: tuple[int, ...], proto: Message) -> Array:
    field, count = _FIELDS[datatype], element_count(shape)
    values = getattr(proto, field)
    if len(values) > count:
        raise InvalidArgument(
            f"input '{name}' of shape {list(shape)} takes {count} values at most, found "
            f"{len(values)} in {field}"
        )
    flat = np.empty(count, NUMPY[datatype])
    flat[: len(values)] = _array_of(name, datatype, values)
    if len(values) < count:
        flat[len(values) :] = flat[len(values) - 1] if values else _zero(datatype)
    return flat.reshape(shape)


def _zero(datatype: str) -> bytes | int:
    return b"" if datatype == "BYTES" else 0


def _array_of(name: str, datatype: str, values: Any) -> Array:
    if datatype == "BYTES":
        found = np.empty(len(values), object)
        found[:] = list(values)
        return found
    kind = np.dtype(np.uint16) if datatype in _HALVES else NUMPY[datatype]
    try:
        return np.array(list(values), kind).view(NUMPY[datatype])
    except OverflowError as error:
        raise InvalidArgument(f"input '{name}' has a value out of range: {error}") from None


def proto_of(output: OutputTensor) -> Message:
    """An output of a model, its values in the field of its type."""
    assert output.data is not None  # no such request asks for shared memory
    proto = SERVING["TensorProto"](dtype=TYPES[output.datatype].number)
    for size in output.shape:
        proto.tensor_shape.dim.add(size=size)
    array = output.data.reshape(-1)
    if output.datatype in _HALVES:
        array = array.view(np.uint16)
    values = array.tolist()
    if output.datatype == "BYTES":
        values = [item.encode() if isinstance(item, str) else item for item in values]
    getattr(proto, _FIELDS[output.datatype]).extend(values)
    return proto

"""TypeProto as types of the graph; dims that are not known become symbols."""

from __future__ import annotations

import keyword
import math
import re

import onnx

from tuili.errors import InvalidModel
from tuili.importers.onnx.tensors import DTYPES, dtype_of
from tuili.ir import MapType, OptionalType, SequenceType, TensorType, ValueType
from tuili.tensors import Dim, Sym

# `u0` and `v0` stand for sizes and elements that depend on data.
_TAKEN = re.compile(r"[uv]\d+|max|min")
_MOST_ELEMENTS = 2**40


class Symbols:
    """Names of symbolic dims: identifiers, unique, equal for equal `dim_param`."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._fresh = 0

    def named(self, param: str) -> Dim:
        """The symbol for a `dim_param`, such as `p2o_DynamicDimension_0`."""
        if param not in self._names:
            self._names[param] = self._unique(_identifier(param))
        return Sym(self._names[param])

    def fresh(self) -> Dim:
        """A new symbol: d0, d1, ..."""
        name = self._unique(f"d{self._fresh}")
        self._fresh += 1
        # A key that no dim_param can have.
        self._names[f"\0{name}"] = name
        return Sym(name)

    def _unique(self, name: str) -> str:
        taken, fresh, number = set(self._names.values()), name, 0
        while fresh in taken:
            number += 1
            fresh = f"{name}_{number}"
        return fresh


def _identifier(param: str) -> str:
    name = re.sub(r"[^0-9A-Za-z_]", "_", param)
    if not name[0].isalpha():
        name = f"d{name}"
    return f"{name}_" if keyword.iskeyword(name) or _TAKEN.fullmatch(name) else name


def type_of(proto: onnx.TypeProto, symbols: Symbols, where: str) -> ValueType | None:
    """A declared type, None where nothing is declared."""
    match proto.WhichOneof("value"):
        case "tensor_type":
            return _tensor(proto.tensor_type, symbols, where)
        case "sparse_tensor_type":
            raise InvalidModel(f"{where} is a sparse tensor at run time; use a dense one")
        case "sequence_type":
            element = _element(proto.sequence_type.elem_type, symbols, where)
            return element and SequenceType(element)
        case "optional_type":
            element = _element(proto.optional_type.elem_type, symbols, where)
            return element and OptionalType(element)
        case "map_type":
            element = type_of(proto.map_type.value_type, symbols, where)
            return element and MapType(dtype_of(proto.map_type.key_type, where), element)
        case _:
            return None


def _element(proto: onnx.TypeProto, symbols: Symbols, where: str) -> ValueType | None:
    """What a list or an optional holds: an open size is another one for each of its tensors."""
    found = type_of(proto, symbols, where)
    if not isinstance(found, TensorType) or found.shape is None:
        return found
    known = all(isinstance(dim, int) for dim in found.shape)
    return found if known else TensorType(found.dtype, None)


def _tensor(proto: onnx.TypeProto.Tensor, symbols: Symbols, where: str) -> TensorType | None:
    if not proto.elem_type:
        return None
    dtype = dtype_of(proto.elem_type, where)
    if not proto.HasField("shape"):
        return TensorType(dtype, None)
    shape = tuple(_dim(dim, symbols) for dim in proto.shape.dim)
    if math.prod(dim for dim in shape if isinstance(dim, int)) > _MOST_ELEMENTS:
        raise InvalidModel(f"{where} has the absurd shape {list(map(str, shape))}")
    return TensorType(dtype, shape)


def _dim(dim: onnx.TensorShapeProto.Dimension, symbols: Symbols) -> Dim:
    # `?` and the like are no names: two of them need not be equal.
    if re.search(r"[0-9A-Za-z]", dim.dim_param):
        return symbols.named(dim.dim_param.strip())
    # Exporters write 0 and -1 for sizes that they do not know.
    return dim.dim_value if dim.dim_value > 0 else symbols.fresh()


_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def proto_of(type_: ValueType | None) -> onnx.TypeProto:
    """The TypeProto of a type; the schemas of the standard ask for it."""
    proto = onnx.TypeProto()
    match type_:
        case TensorType(dtype, shape):
            proto.tensor_type.elem_type = _NUMBERS[dtype]
            if shape is not None:
                proto.tensor_type.shape.SetInParent()
                for dim in shape:
                    entry = proto.tensor_type.shape.dim.add()
                    if isinstance(dim, int):
                        entry.dim_value = dim
                    else:
                        entry.dim_param = str(dim)
        case SequenceType(element):
            proto.sequence_type.elem_type.CopyFrom(proto_of(element))
        case OptionalType(element):
            proto.optional_type.elem_type.CopyFrom(proto_of(element))
        case MapType(key, value):
            proto.map_type.key_type = _NUMBERS[key]
            proto.map_type.value_type.CopyFrom(proto_of(value))
        case None:
            pass
    return proto

"""AttributeProto as attributes of the graph: numbers, text, element types, arrays, graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import AttributeProto, GraphProto

from tuili.errors import InvalidModel
from tuili.importers.onnx.tensors import array_of, dense, dtype_of
from tuili.importers.onnx.types import Symbols, type_of
from tuili.ir import Attr, Graph

# Integers that stand for an element type.
_DTYPE_ATTRS = {"to", "dtype", "output_dtype", "softmax_precision", "output_datatype"}
_UNDEFINED = 0
_KIND: Any = AttributeProto  # the numbers of attribute kinds


@dataclass(frozen=True, slots=True)
class Attributes:
    """Reads the attributes of one node; `bound` are those of the function call around it."""

    label: str
    folder: Path | None
    graph: Callable[[GraphProto], Graph]
    symbols: Symbols
    bound: Mapping[str, AttributeProto]

    def read(self, protos: Iterable[AttributeProto]) -> dict[str, Attr]:
        """All attributes by name."""
        attrs: dict[str, Attr] = {}
        for proto in protos:
            given = self.bound.get(proto.ref_attr_name) if proto.ref_attr_name else proto
            # A reference to an attribute that the call leaves out leaves it out here too.
            if given is not None:
                attrs[proto.name] = self._value(proto.name, given)
        return attrs

    def _value(self, name: str, proto: AttributeProto) -> Any:
        where = f"{self.label}: attribute {name!r}"
        readers: dict[int, Callable[[], Any]] = {
            _KIND.INT: lambda: _integer(name, proto.i, where),
            _KIND.INTS: lambda: tuple(proto.ints),
            _KIND.FLOAT: lambda: _number(proto.f, where),
            _KIND.FLOATS: lambda: tuple(_number(item, where) for item in proto.floats),
            _KIND.STRING: lambda: _text(proto.s),
            _KIND.STRINGS: lambda: tuple(map(_text, proto.strings)),
            _KIND.TENSOR: lambda: array_of(proto.t, self.folder, where),
            _KIND.TENSORS: lambda: tuple(array_of(t, self.folder, where) for t in proto.tensors),
            _KIND.SPARSE_TENSOR: lambda: dense(proto.sparse_tensor, self.folder),
            _KIND.GRAPH: lambda: self.graph(proto.g),
            _KIND.GRAPHS: lambda: tuple(map(self.graph, proto.graphs)),
            _KIND.TYPE_PROTO: lambda: str(type_of(proto.tp, self.symbols, where)),
        }
        if proto.type not in readers:
            raise InvalidModel(f"{where} has kind {proto.type}, which no known operator takes")
        return readers[proto.type]()


def _integer(name: str, number: int, where: str) -> Any:
    is_dtype = name in _DTYPE_ATTRS and number != _UNDEFINED
    return dtype_of(number, where) if is_dtype else number


def _number(number: float, where: str) -> float:
    return float(number)


def _text(item: bytes) -> str:
    return item.decode("utf-8", "surrogateescape")

"""Saver: a graph as the structures of the saved form; arrays are collected by key."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tuili.errors import InternalError
from tuili.ir import _schema as schema
from tuili.ir.graph import Attr, Graph, Node, Value
from tuili.ir.types import MapType, OptionalType, SequenceType, TensorType, ValueType
from tuili.tensors import Array, DType, Expr


class Saver:
    """Turns one graph into its saved form; `arrays` is filled on the way."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._keys: dict[int, str] = {}

    def graph(self, graph: Graph) -> schema.SavedGraph:
        """A graph and everything nested in it."""
        return schema.SavedGraph(
            name=graph.name,
            inputs=[_value(value) for value in graph.inputs],
            constants=[self._constant(value) for value in graph.constants.values()],
            nodes=[self._node(node) for node in graph.nodes],
            outputs=[value.name for value in graph.outputs],
            metadata=graph.metadata,
        )

    def _constant(self, value: Value) -> schema.SavedConstant:
        if value.constant is None:
            raise InternalError(f"constant {value.name!r} has no contents")
        return schema.SavedConstant(
            value.name, self._array(value.constant, value.name), value.layout
        )

    def _node(self, node: Node) -> schema.SavedNode:
        return schema.SavedNode(
            op=node.op,
            inputs=[None if value is None else value.name for value in node.inputs],
            outputs=[_value(value) for value in node.outputs],
            attrs={
                name: self._attr(node.attrs[name], f"{node.label}.{name}")
                for name in sorted(node.attrs)
            },
            name=node.name,
        )

    def _attr(self, attr: Attr, key: str) -> schema.SavedAttr:
        match attr:
            case Graph():
                return schema.GraphAttr(self.graph(attr))
            case Expr():
                return schema.DimAttr(str(attr))
            case DType():
                return schema.DTypeAttr(attr.value)
            case str():
                return schema.StringAttr(attr)
            case tuple():
                return schema.ListAttr([self._attr(item, key) for item in attr])
            case np.ndarray():
                return self._array(attr, key)
            case float():
                # "nan", "inf" and "-inf" are what Python calls them.
                words: Any = attr if math.isfinite(attr) else str(attr)
                return schema.FloatAttr(words)
            case _:
                return schema.IntAttr(int(attr))  # pyright: ignore[reportArgumentType]

    def _array(self, array: Array, name: str) -> schema.SavedArray:
        dtype, shape = DType.of(array.dtype), list(array.shape)
        if dtype is DType.STR:
            return schema.SavedArray("str", shape, strings=[str(item) for item in array.ravel()])
        return schema.SavedArray(dtype.value, shape, tensor=self._key(array, name))

    def _key(self, array: Array, name: str) -> str:
        """The key of an array; one array object is stored once."""
        if id(array) not in self._keys:
            key, number = name, 0
            while key in self.arrays:
                number += 1
                key = f"{name}_{number}"
            self.arrays[key] = array
            self._keys[id(array)] = key
        return self._keys[id(array)]


def _value(value: Value) -> schema.SavedValue:
    return schema.SavedValue(value.name, None if value.type is None else _type(value.type))


def _type(type_: ValueType) -> schema.SavedType:
    match type_:
        case TensorType(dtype, shape, layout):
            dims = None if shape is None else [d if isinstance(d, int) else str(d) for d in shape]
            return schema.SavedTensorType(dtype.value, dims, layout)
        case SequenceType(element):
            return schema.SavedSequenceType(_type(element))
        case OptionalType(element):
            return schema.SavedOptionalType(_type(element))
        case MapType(key, value):
            return schema.SavedMapType(key.value, _type(value))

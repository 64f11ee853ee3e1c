"""Restorer: the structures of the saved form as a graph, every name and size checked."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from tuili.errors import InvalidModel, UserError
from tuili.ir import _schema as schema
from tuili.ir.graph import Attr, Graph, Value
from tuili.ir.types import MapType, OptionalType, SequenceType, TensorType, ValueType
from tuili.tensors import Array, DType, parse_dim

Scope: TypeAlias = "ChainMap[str, Value]"


class Restorer:
    """Builds graphs whose arrays lie in `weights`, as bytes."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights

    def read(self, saved: schema.SavedGraph) -> Graph:
        """The graph; raises InvalidModel."""
        try:
            return self._graph(saved, ChainMap(), None)
        except InvalidModel:
            raise
        except UserError as error:  # an element type that does not exist
            raise InvalidModel(str(error)) from error

    def _graph(self, saved: schema.SavedGraph, outer: Scope, around: Graph | None) -> Graph:
        graph = Graph(saved.name, around)
        graph.metadata.update(saved.metadata)
        scope: Scope = ChainMap({}, *outer.maps)
        for item in saved.inputs:
            _define(scope, item.name, graph.add_input(item.name, _type(item.type)))
        for item in saved.constants:
            value = graph.add_constant(self._array(item.contents, item.name), item.name)
            value.type = value.tensor.with_layout(item.layout)
            del graph.constants[value.name]
            _define(scope, item.name, value)
            graph.constants[value.name] = value
        for item in saved.nodes:
            self._node(graph, item, scope)
        graph.set_outputs(_known(scope, name, f"graph {saved.name!r}") for name in saved.outputs)
        return graph

    def _node(self, graph: Graph, saved: schema.SavedNode, scope: Scope) -> None:
        label = f"{saved.op} node {saved.name or next((o.name for o in saved.outputs), '')!r}"
        inputs = [None if name is None else _known(scope, name, label) for name in saved.inputs]
        attrs = {name: self._attr(attr, scope, graph, label) for name, attr in saved.attrs.items()}
        node = graph.add(
            saved.op,
            inputs,
            attrs,
            outputs=[item.name for item in saved.outputs],
            types=[_type(item.type) for item in saved.outputs],
            name=saved.name,
        )
        for item, value in zip(saved.outputs, node.outputs, strict=True):
            _define(scope, item.name, value)

    def _attr(self, saved: schema.SavedAttr, scope: Scope, graph: Graph, label: str) -> Attr:
        match saved:
            case schema.ListAttr(items):
                return tuple(self._attr(item, scope, graph, label) for item in items)
            case schema.GraphAttr(nested):
                return self._graph(nested, scope, graph)
            case schema.SavedArray():
                return self._array(saved, label)
            case schema.DTypeAttr(value):
                return DType.parse(value)
            case schema.DimAttr(value):
                return parse_dim(value)
            case schema.FloatAttr(value):
                return float(value)
            case schema.IntAttr(value) | schema.StringAttr(value):
                return value

    def _array(self, saved: schema.SavedArray, owner: str) -> Array:
        dtype = DType.parse(saved.dtype)
        shape, count = tuple(saved.shape), math.prod(saved.shape)
        if dtype is DType.STR:
            strings = saved.strings or []
            if len(strings) != count:
                raise InvalidModel(
                    f"{owner}: {len(strings)} texts, shape {list(shape)} needs {count}"
                )
            array = np.empty(count, object)
            array[:] = strings
            return array.reshape(shape)
        data = None if saved.tensor is None else self._weights.get(saved.tensor)
        if data is None:
            raise InvalidModel(f"{owner}: its tensor {saved.tensor!r} is not in the weights file")
        if data.nbytes != count * dtype.itemsize:
            raise InvalidModel(
                f"{owner}: tensor {saved.tensor!r} has {data.nbytes} bytes;"
                f" {dtype.value}{list(shape)} needs {count * dtype.itemsize}"
            )
        return data.view(dtype.numpy).reshape(shape)


def _define(scope: Scope, name: str, value: Value) -> None:
    if name in scope.maps[0]:
        raise InvalidModel(f"value {name!r} is defined twice")
    value.name = name
    scope[name] = value


def _known(scope: Scope, name: str, reader: str) -> Value:
    if name not in scope:
        raise InvalidModel(f"{reader} reads {name!r}, which nothing before it defines")
    return scope[name]


def _type(saved: schema.SavedType | None) -> ValueType | None:
    match saved:
        case None:
            return None
        case schema.SavedTensorType(dtype, shape, layout):
            dims = None if shape is None else tuple(parse_dim(dim) for dim in shape)
            return TensorType(DType.parse(dtype), dims, layout)
        case schema.SavedMapType(key, value):
            return MapType(DType.parse(key), _inner(value))
        case schema.SavedSequenceType(element):
            return SequenceType(_inner(element))
        case schema.SavedOptionalType(element):
            return OptionalType(_inner(element))


def _inner(saved: schema.SavedType) -> ValueType:
    found = _type(saved)
    assert found is not None
    return found

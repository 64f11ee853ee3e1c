"""A plain ONNX model as a graph, for the tests of operators: no upgrades, no checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper

from tuili.ir import (
    Graph,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    Value,
    ValueType,
)
from tuili.ops.table import TABLE
from tuili.tensors import Array, DType, Sym

_DTYPES = {
    1: DType.F32, 2: DType.U8, 3: DType.I8, 4: DType.U16, 5: DType.I16, 6: DType.I32, 7: DType.I64,
    8: DType.STR, 9: DType.BOOL, 10: DType.F16, 11: DType.F64, 12: DType.U32, 13: DType.U64,
    14: DType.C64, 15: DType.C128, 16: DType.BF16, 17: DType.F8E4M3FN, 18: DType.F8E4M3FNUZ,
    19: DType.F8E5M2, 20: DType.F8E5M2FNUZ, 21: DType.U4, 22: DType.I4, 23: DType.F4E2M1,
    24: DType.F8E8M0, 25: DType.U2, 26: DType.I2,
}  # fmt: skip
_DTYPE_ATTRS = {"to", "dtype", "output_dtype", "softmax_precision", "output_datatype"}


def array_of(tensor: onnx.TensorProto) -> Array:
    """A tensor's elements; text as str."""
    array = numpy_helper.to_array(tensor)
    if tensor.data_type == onnx.TensorProto.STRING:
        return text(array)
    return array


def text(array: Array) -> Array:
    """Text elements as str objects."""
    items = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(array.shape)


def type_of(proto: onnx.TypeProto) -> ValueType | None:
    """A value's declared type."""
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        element = type_of(proto.sequence_type.elem_type)
        return element and SequenceType(element)
    if kind == "optional_type":
        element = type_of(proto.optional_type.elem_type)
        return element and OptionalType(element)
    if kind == "map_type":
        element = type_of(proto.map_type.value_type)
        return element and MapType(_DTYPES[proto.map_type.key_type], element)
    if kind != "tensor_type" or proto.tensor_type.elem_type == 0:
        return None
    dtype = _DTYPES[proto.tensor_type.elem_type]
    if not proto.tensor_type.HasField("shape"):
        return TensorType(dtype, None)
    dims: list[Any] = []
    for index, dim in enumerate(proto.tensor_type.shape.dim):
        name = dim.dim_param if dim.dim_param.isidentifier() else f"unnamed{index}_{id(proto)}"
        dims.append(dim.dim_value if dim.HasField("dim_value") else Sym(name))
    return TensorType(dtype, tuple(dims))


class _Reader:
    def __init__(self, outer: dict[str, Value], domains: dict[str, str]) -> None:
        self._values = dict(outer)
        self._domains = domains

    def graph(self, proto: onnx.GraphProto, symbolic: bool = False) -> Graph:
        graph = Graph(proto.name or "graph")
        constants = {tensor.name: array_of(tensor) for tensor in proto.initializer}
        for info in proto.input:
            if info.name not in constants:
                self._values[info.name] = graph.add_input(info.name, type_of(info.type))
        for name, array in constants.items():
            self._values[name] = graph.add_constant(array, name)
        for sparse in proto.sparse_initializer:
            array = _dense(sparse)
            self._values[sparse.values.name] = graph.add_constant(array, sparse.values.name)
        for node in proto.node:
            self._node(graph, node)
        graph.set_outputs(self._values[info.name] for info in proto.output)
        return graph

    def _node(self, graph: Graph, proto: onnx.NodeProto) -> None:
        if proto.op_type == "Constant" and not proto.domain:
            self._values[proto.output[0]] = graph.add_constant(_constant(proto), proto.output[0])
            return
        domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}::"
        name = domain + proto.op_type
        attrs = {attr.name: self._attr(attr) for attr in proto.attribute}
        if name == "ConstantOfShape" and "value" in attrs:
            attrs["value"] = np.asarray(attrs["value"])
        inputs = [self._values[each] if each else None for each in proto.input]
        row = TABLE.get(name)
        while inputs and inputs[-1] is None and row and not row.inputs[-1].variadic:
            inputs.pop()
        node = graph.add(name, inputs, attrs, outputs=list(proto.output), name=proto.name)
        for wanted, value in zip(proto.output, node.outputs, strict=True):
            if wanted:
                self._values[wanted] = value

    def _attr(self, attr: onnx.AttributeProto) -> Any:
        if attr.type == onnx.AttributeProto.GRAPH:
            return _Reader(self._values, self._domains).graph(attr.g)
        value = onnx.helper.get_attribute_value(attr)
        if attr.name in _DTYPE_ATTRS and isinstance(value, int):
            return _DTYPES.get(value)
        return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return array_of(value)
    if isinstance(value, onnx.TypeProto):
        return str(type_of(value))
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value


def _dense(sparse: onnx.SparseTensorProto) -> Array:
    values = array_of(sparse.values)
    indices = array_of(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    places = indices.ravel() if indices.ndim == 1 else np.ravel_multi_index(indices.T, result.shape)
    result.ravel()[places] = values
    return result


def _constant(proto: onnx.NodeProto) -> Array:
    attr = proto.attribute[0]
    value = onnx.helper.get_attribute_value(attr)
    if attr.name == "sparse_value":
        return _dense(value)
    if attr.name == "value":
        return array_of(value)
    if attr.name.startswith("value_string"):
        return text(np.array(value, object))
    kind = np.float32 if attr.name.startswith("value_float") else np.int64
    return np.array(value, kind)


def graph_of(model: onnx.ModelProto) -> Graph:
    """The model's graph, functions inlined."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    domains = {entry.domain: str(entry.version) for entry in model.opset_import}
    return _Reader({}, domains).graph(model.graph)

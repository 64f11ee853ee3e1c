"""A graph as a ModelProto, for onnxruntime and for our own importer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import onnx
from onnx import helper, numpy_helper

from tuili.ir import Graph, Node, Value
from tuili.tensors import DType

LEAST_OPSET = 22
_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


def model_of(graphs: Sequence[Graph]) -> onnx.ModelProto:
    """One model of graphs that have nothing to do with one another; their names differ."""
    nodes = [node for graph in graphs for node in graph.walk()]
    protos = [_node(node) for graph in graphs for node in graph.nodes]
    main = helper.make_graph(
        protos,
        "fuzz",
        [_info(value) for graph in graphs for value in graph.inputs],
        [_info(value, known=False) for graph in graphs for value in graph.outputs],
        [_tensor(value) for graph in graphs for value in graph.constants.values()],
    )
    opsets = [helper.make_opsetid("", _opset(nodes))]
    for domain, version in {"com.microsoft": 1, "ai.onnx.ml": 3}.items():
        if any(node.op.startswith(f"{domain}::") for node in nodes):
            opsets.append(helper.make_opsetid(domain, version))
    return helper.make_model(main, opset_imports=opsets, ir_version=10)


def _opset(nodes: Iterable[Node]) -> int:
    """The oldest operator set that has all operators; engines lag behind the standard."""
    wanted = LEAST_OPSET
    for node in nodes:
        if "::" not in node.op:
            wanted = max(wanted, _first_versions().get(node.op, LEAST_OPSET))
    return wanted


@cache
def _first_versions() -> dict[str, int]:
    """The operator set in which each operator appeared."""
    found: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            oldest = found.get(schema.name, schema.since_version)
            found[schema.name] = min(oldest, schema.since_version)
    return found


def _node(node: Node) -> onnx.NodeProto:
    domain, _, op = node.op.rpartition("::")
    inputs = ["" if value is None else value.name for value in node.inputs]
    name = node.outputs[0].name
    proto = helper.make_node(op, inputs, _output_names(node), domain=domain, name=name)
    for name, attr in node.attrs.items():
        proto.attribute.append(helper.make_attribute(name, _attribute(name, attr)))
    return proto


def _output_names(node: Node) -> list[str]:
    """Those that nobody reads are left out where the standard lets them."""
    names = [value.name for value in node.outputs]
    if "::" in node.op or node.graphs():
        return names
    formals = onnx.defs.get_schema(node.op).outputs
    for index, (value, formal) in enumerate(zip(node.outputs, formals, strict=False)):
        if not value.uses and formal.option == _OPTIONAL:
            names[index] = ""
    while not names[-1]:
        names.pop()
    return names


def _attribute(name: str, attr: Any) -> Any:
    if isinstance(attr, Graph):
        return helper.make_graph(
            [_node(node) for node in attr.nodes],
            attr.name,
            [_info(value) for value in attr.inputs],
            [_info(value, known=False) for value in attr.outputs],
            [_tensor(value) for value in attr.constants.values()],
        )
    if isinstance(attr, DType):
        return _code(attr)
    if isinstance(attr, tuple):
        return list(attr)
    return numpy_helper.from_array(attr) if hasattr(attr, "dtype") else attr


def _code(dtype: DType) -> int:
    return helper.np_dtype_to_tensor_dtype(dtype.numpy)


def _info(value: Value, *, known: bool = True) -> onnx.ValueInfoProto:
    if not known:
        if value.type is None:
            return onnx.ValueInfoProto(name=value.name)
        return helper.make_tensor_value_info(value.name, _code(value.dtype), None)
    shape = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
    return helper.make_tensor_value_info(value.name, _code(value.dtype), shape)


def _tensor(value: Value) -> onnx.TensorProto:
    return numpy_helper.from_array(value.constant, value.name)

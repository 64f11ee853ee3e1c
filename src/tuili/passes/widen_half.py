"""Half-precision floats (f16, bf16) are held and computed as f32 between a model's edges.

A processor without their arithmetic widens every operand and rounds every result; doing so once, at
the edges, leaves a graph for which every f32 kernel and fusion exists, and whose results are at
least as close to the exact ones. Where the model itself casts to a half-precision type, its values
are rounded as before. Overflow is the one difference that may show: 65504 + 65504 is infinite in
f16 only. Weights stay in 16 bits where kernels widen them (`codegen/kernels/half_panels`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.table import TABLE
from tuili.tensors import DType

HALF = frozenset({DType.F16, DType.BF16})
_ARRAYS = frozenset(dtype.numpy for dtype in HALF)

# Nested graphs that are widened with their node; others keep the types that they declare.
_CONTROL = frozenset({"If", "Loop", "Scan"})

Types = dict[Value, DType]  # what values were before


def widen_half(graph: Graph) -> bool:
    """Widen a typed graph with everything nested in it; its inputs and outputs keep their types."""
    graphs = list(_all_graphs(graph))
    before: Types = {
        value: value.dtype for each in graphs for value in each.defined() if _is_half(value)
    }
    if not before or not _can_widen(graph, graphs):
        return False
    results = [before.get(value) for value in graph.outputs]
    _cast_inputs(graph, before)
    for each in graphs:
        for value in each.constants.values():
            _widen_constant(value)
        for node in list(each.nodes):
            _widen_node(each, node, before)
        if each is not graph:
            for value in each.inputs:
                _retype(value)
    _cast_outputs(graph, results)
    return True


def _all_graphs(graph: Graph) -> Iterator[Graph]:
    yield graph
    for node in graph.nodes:
        for nested in node.graphs():
            yield from _all_graphs(nested)


def _is_half(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype in HALF


def _can_widen(graph: Graph, graphs: list[Graph]) -> bool:
    """Whether all values are tensors, and no operator hides a graph that must keep its types."""
    values = (value for each in graphs for value in each.defined())
    tensors = all(isinstance(value.type, TensorType) for value in values)
    return tensors and all(node.op in _CONTROL or not node.graphs() for node in graph.walk())


def _retype(value: Value) -> None:
    if _is_half(value):
        value.type = TensorType(DType.F32, value.tensor.shape, value.layout)


def _widen_constant(value: Value) -> None:
    if _is_half(value) and value.constant is not None:
        value.constant = value.constant.astype(np.float32)
        _retype(value)


def _widen_node(graph: Graph, node: Node, before: Types) -> None:
    if node.op in ("Cast", "CastLike") and _is_half(node.output):
        _round(graph, node, before)
    elif _sees_types(node):
        _keep_types(graph, node, before)
    else:
        for name, attr in node.attrs.items():
            if isinstance(attr, DType) and attr in HALF:
                node.attrs[name] = DType.F32
            elif isinstance(attr, np.ndarray) and attr.dtype in _ARRAYS:
                node.attrs[name] = attr.astype(np.float32)
        for value in node.outputs:
            _retype(value)


def _sees_types(node: Node) -> bool:
    """Whether an operator looks at the bits or the digits of a number, or is not ours."""
    if node.op in ("Cast", "CastLike"):
        return node.output.dtype is DType.STR
    return node.op == "BitCast" or node.op not in TABLE


def _round(graph: Graph, node: Node, before: Types) -> None:
    """A cast to half precision: f32 that were rounded, unless they had that type already."""
    source, result = node.required(0), node.output
    if before.get(source) is not result.dtype and source.dtype is not DType.F32:
        _widen_result(graph, node, result)
        return
    node.attrs.clear()
    node.op = "Identity"
    if before.get(source) is not result.dtype:
        node.op, node.attrs["to"] = "RoundTo", result.dtype
    node.set_inputs([source])
    _retype(result)


def _widen_result(graph: Graph, node: Node, result: Value) -> None:
    shape, name = result.tensor.shape, result.name
    graph.rename(result, f"{name}_half")  # what others read keeps the name: it may be an output
    wide = graph.add("Cast", [], {"to": DType.F32}, outputs=[name], after=node)
    wide.output.type = TensorType(DType.F32, shape)
    graph.replace_uses(result, wide.output)
    wide.set_inputs([result])


def _keep_types(graph: Graph, node: Node, before: Types) -> None:
    """An operator that must see the declared types: casts around it."""
    for slot, value in enumerate(node.inputs):
        if value is not None and value in before:
            cast = graph.add("Cast", [value], {"to": before[value]}, before=node)
            cast.output.type = TensorType(before[value], value.tensor.shape)
            node.set_input(slot, cast.output)
    for value in node.outputs:
        if _is_half(value):
            _widen_result(graph, node, value)


def _cast_inputs(graph: Graph, before: Types) -> None:
    first = graph.nodes[0] if graph.nodes else None
    outputs = graph.outputs
    for value in graph.inputs:
        if value in before and value.users:
            wide = graph.add(
                "Cast", [], {"to": DType.F32}, outputs=[f"{value.name}_f32"], before=first
            )
            wide.output.type = TensorType(DType.F32, value.tensor.shape)
            before[wide.output] = before[value]
            graph.replace_uses(value, wide.output)
            wide.set_inputs([value])
    graph.set_outputs(outputs)  # an input that is returned stays itself


def _cast_outputs(graph: Graph, types: list[DType | None]) -> None:
    narrowed: dict[Value, Value] = {}
    for value, dtype in zip(graph.outputs, types, strict=True):
        if dtype is not None and value.dtype is DType.F32 and value not in narrowed:
            name = value.name
            graph.rename(value, f"{name}_f32")
            cast = graph.add("Cast", [value], {"to": dtype}, outputs=[name])
            cast.output.type = TensorType(dtype, value.tensor.shape)
            narrowed[value] = cast.output
    graph.set_outputs([narrowed.get(value, value) for value in graph.outputs])

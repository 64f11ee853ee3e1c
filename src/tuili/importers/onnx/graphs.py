"""GraphReader: GraphProto to Graph, nested graphs and function bodies included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto

from tuili.errors import InvalidModel
from tuili.importers.onnx.attributes import Attributes
from tuili.importers.onnx.call import Call
from tuili.importers.onnx.functions import Body, body_of
from tuili.importers.onnx.kinds import check_kinds
from tuili.importers.onnx.order import in_order
from tuili.importers.onnx.tensors import array_of, dense
from tuili.importers.onnx.types import Symbols, type_of
from tuili.importers.onnx.upgrades import upgrade
from tuili.ir import Graph, TensorType, Value
from tuili.ops.contents import Contents
from tuili.ops.infer import infer_node
from tuili.ops.table import find
from tuili.tensors import Array, DType

_MOST_NESTED = 64
Scope = dict[str, "Value | None"]


@dataclass(slots=True)
class World:
    """What all graphs of one model share."""

    folder: Path | None
    functions: dict[tuple[str, str, str], onnx.FunctionProto]
    symbols: Symbols = field(default_factory=Symbols)
    contents: Contents = field(default_factory=Contents)


class GraphReader:
    """Reads nodes into one graph; `outer` is the reader of the graph around it."""

    def __init__(self, world: World, graph: Graph, outer: GraphReader | None = None) -> None:
        self.world = world
        self.graph = graph
        self.outer = outer
        self._inferred = 0

    def infer(self) -> None:
        """Fill the types of the nodes read so far, in the graphs around first."""
        if self.outer is not None:
            self.outer.infer()
        for node in self.graph.nodes[self._inferred :]:
            if find(node.op) is not None:
                infer_node(node, self.world.contents)
        self._inferred = len(self.graph.nodes)

    # -- graphs ----------------------------------------------------------------------------

    def read(
        self,
        proto: GraphProto,
        around: Scope,
        opsets: Mapping[str, int],
        bound: Mapping[str, AttributeProto],
    ) -> None:
        """Fill the graph from a GraphProto; `around` holds the values it may capture."""
        scope = dict(around)
        own: Scope = {}
        held = {tensor.name for tensor in proto.initializer}
        held |= {sparse.values.name for sparse in proto.sparse_initializer}
        for info in proto.input:
            # Old files list their initialisers among the inputs.
            if info.name not in held:
                value = self.graph.add_input(info.name, self._input_type(info))
                self._define(own, info.name, value, "graph input")
        for tensor in proto.initializer:
            array = array_of(tensor, self.world.folder, f"initializer {tensor.name!r}")
            value = self.graph.add_constant(array, tensor.name)
            self._define(own, tensor.name, value, "initializer")
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            value = self.graph.add_constant(dense(sparse, self.world.folder), name)
            self._define(own, name, value, "initializer")
        scope |= own
        frame = _Frame(scope, own, opsets, bound)
        for node in in_order(proto.node, scope, self.graph.name):
            self._node(node, frame)
        self.graph.set_outputs(self._outputs(proto, scope))

    def _input_type(self, info: onnx.ValueInfoProto) -> Any:
        found = type_of(info.type, self.world.symbols, f"graph input {info.name!r}")
        if self.outer is None and found is None:
            raise InvalidModel(f"graph input {info.name!r} has no type; a model must declare it")
        if self.outer is not None and isinstance(found, TensorType) and found.shape is not None:
            # Dims of inner graphs follow from what the operator passes in.
            static = all(isinstance(dim, int) for dim in found.shape)
            return found if static else TensorType(found.dtype, None)
        return found

    def _define(self, own: Scope, name: str, value: Value, what: str) -> None:
        if name in own:
            raise InvalidModel(
                f"{what} {name!r} is defined twice in graph {self.graph.name!r};"
                " names must be unique"
            )
        own[name] = value

    def _outputs(self, proto: GraphProto, scope: Scope) -> Iterator[Value]:
        for info in proto.output:
            value = scope.get(info.name)
            if value is None:
                raise InvalidModel(
                    f"graph {self.graph.name!r} returns {info.name!r}, which nothing defines"
                )
            yield value

    # -- nodes -----------------------------------------------------------------------------

    def _node(self, proto: NodeProto, frame: _Frame) -> None:
        results = self._results(proto, frame)
        if len(results) < len([name for name in proto.output if name]):
            label = f"{proto.op_type} node {proto.name or proto.output[0]!r}"
            raise InvalidModel(
                f"{label}: {len(proto.output)} outputs are named, it has {len(results)}"
            )
        for name, value in zip(proto.output, results, strict=False):
            if name:
                self._define(frame.own, name, value, "node output")
                frame.scope[name] = value

    def _results(self, proto: NodeProto, frame: _Frame) -> Sequence[Value]:
        call = self._call(proto, frame)
        if call.op == "Constant":
            return [self._constant(call)]
        version = frame.opsets.get("" if proto.domain == "ai.onnx" else proto.domain, 0)
        found = body_of(call, proto, version, self.world.functions)
        if found is None:
            check_kinds(call, version)
        if found is not None:
            return self._expand(call, found, frame)
        results = upgrade(call)
        return results if results is not None else self._add(call)

    def _add(self, call: Call) -> Sequence[Value]:
        inputs = call.inputs
        row = find(call.op)
        variadic = row is not None and row.inputs and row.inputs[-1].variadic
        while inputs and inputs[-1] is None and not variadic:
            inputs.pop()
        return self.graph.add(
            call.op, inputs, call.attrs, outputs=call.outputs, name=call.name
        ).outputs

    def _call(self, proto: NodeProto, frame: _Frame) -> Call:
        domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}::"
        name = proto.name or (proto.output[0] if proto.output else "")
        label = f"{domain}{proto.op_type} node {name!r}"
        attrs = Attributes(
            label,
            self.world.folder,
            lambda graph: self._nested(graph, frame),
            self.world.symbols,
            frame.bound,
        )
        return Call(
            graph=self.graph,
            op=domain + proto.op_type,
            inputs=[frame.scope[name] if name else None for name in proto.input],
            attrs=attrs.read(proto.attribute),
            outputs=[frame.names.get(name, name and frame.prefix + name) for name in proto.output],
            name=proto.name,
            opset=frame.opsets.get("", 1),
            infer=self.infer,
            proto=proto,
            bound=frame.bound,
        )

    def _nested(self, proto: GraphProto, frame: _Frame) -> Graph:
        graph = Graph(proto.name or "body", self.graph)
        depth, reader = 1, self
        while reader.outer is not None:
            depth, reader = depth + 1, reader.outer
        if depth > _MOST_NESTED:
            raise InvalidModel(f"graphs are nested more than {_MOST_NESTED} deep")
        GraphReader(self.world, graph, self).read(proto, frame.scope, frame.opsets, frame.bound)
        return graph

    def _constant(self, call: Call) -> Value:
        given = list(call.attrs)
        if len(given) != 1:
            call.fail(f"it has {len(given)} values; a Constant has exactly one")
        return self.graph.add_constant(_constant_array(call, given[0]), call.outputs[0])

    # -- functions -------------------------------------------------------------------------

    def _expand(self, call: Call, body: Body, frame: _Frame) -> Sequence[Value]:
        proto = body.proto
        if frame.depth > _MOST_NESTED:
            call.fail("functions call each other without end")
        if len(call.inputs) > len(proto.input):
            call.fail(f"{len(call.inputs)} inputs are given; the function takes {len(proto.input)}")
        given = [*call.inputs, *[None] * (len(proto.input) - len(call.inputs))]
        scope: Scope = dict(zip(proto.input, given, strict=True))
        names = dict(zip(proto.output, call.outputs, strict=False))
        inner = _Frame(
            scope, dict(scope), body.opsets, body.bound, f"{call.title}.", names, frame.depth + 1
        )
        for node in in_order(proto.node, scope, proto.name):
            self._node(node, inner)
        results = [scope.get(name) for name in proto.output]
        missing = [name for name, value in zip(names, results, strict=False) if value is None]
        if missing:
            call.fail(f"the function {proto.name!r} never defines its output {missing[0]!r}")
        return [value for value in results if value is not None]


@dataclass(slots=True)
class _Frame:
    """Where nodes find names: the values in reach, and how new values are called."""

    scope: Scope
    own: Scope
    opsets: Mapping[str, int]
    bound: Mapping[str, AttributeProto]  # attributes of the function call around
    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    depth: int = 0


# The attributes of Constant that are no arrays: the type of their elements, and how many there are.
_CONSTANTS: dict[str, tuple[DType, type]] = {
    "value_int": (DType.I64, int),
    "value_ints": (DType.I64, tuple),
    "value_float": (DType.F32, float),
    "value_floats": (DType.F32, tuple),
    "value_string": (DType.STR, str),
    "value_strings": (DType.STR, tuple),
}


def _constant_array(call: Call, name: str) -> Array:
    """The value of a Constant, from its one attribute."""
    value: Any = call.attrs[name]
    if isinstance(value, np.ndarray):
        return value
    dtype, kind = _CONSTANTS.get(name, (DType.I64, np.ndarray))
    if not isinstance(value, kind):
        call.fail(f"attribute {name!r} is a {type(value).__name__}, which it cannot be")
    if dtype is not DType.STR:
        return np.array(value, dtype.numpy)
    array = np.empty(() if isinstance(value, str) else len(value), object)
    array[...] = value
    return array

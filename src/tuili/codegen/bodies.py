"""Bodies: the scalar graph that an elementwise node applies, fused or single."""

from __future__ import annotations

from dataclasses import dataclass

from tuili.ir import Graph, Node, TensorType, Value
from tuili.tensors import Array


@dataclass(frozen=True, slots=True)
class Body:
    """A scalar graph and the node's inputs that it reads, each once."""

    graph: Graph
    operands: tuple[Value, ...]
    slots: tuple[int, ...]  # per input of the graph: which operand
    known: dict[int, Array]  # inputs of the graph that are one number

    @property
    def cost(self) -> int:
        """Rough arithmetic per element."""
        return sum(20 if node.op in _COSTLY else 1 for node in self.graph.nodes)


_COSTLY = frozenset(
    {"Exp", "Log", "Tanh", "Erf", "Gelu", "Sigmoid", "Swish", "Mish", "Softplus", "Pow"}
    | {"Elu", "Selu", "Celu", "Sin", "Cos", "Div", "Reciprocal", "Sqrt"}
)


def body_of(node: Node) -> Body:
    """The body of an elementwise node or of a fused region."""
    fused = node.attrs.get("body")
    if node.op == "Fused" and isinstance(fused, Graph):
        return _bound(fused, [node.required(index) for index in range(len(node.inputs))])
    graph = Graph(node.op.lower())
    # CastLike reads the type of its second input, never its elements.
    inputs = node.inputs[:1] if node.op == "CastLike" else node.inputs
    given = [value for value in inputs if value is not None]
    names = iter([graph.add_input("x", TensorType(value.dtype, ())) for value in given])
    attrs = {name: attr for name, attr in node.attrs.items() if name != "epilogue"}
    single = graph.add(
        node.op,
        [None if value is None else next(names) for value in inputs],
        attrs,
        types=[TensorType(node.output.dtype, ())],
        name=node.name,
    )
    graph.set_outputs([single.output])
    return _bound(graph, given)


def _bound(graph: Graph, values: list[Value]) -> Body:
    known = {
        index: value.constant
        for index, value in enumerate(values)
        if value.constant is not None and value.constant.size == 1
    }
    read = dict.fromkeys(value for index, value in enumerate(values) if index not in known)
    operands = tuple(read)
    places = {value: place for place, value in enumerate(operands)}
    slots = tuple(places.get(value, -1) for value in values)
    return Body(graph, operands, slots, known)

"""Bodies: the scalar graph that an elementwise node applies, fused or single."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.table import attr
from tuili.tensors import Array, Dim, DType, Shape


@dataclass(frozen=True, slots=True)
class Body:
    """A scalar graph and the node's inputs that it reads, each once."""

    graph: Graph
    operands: tuple[Value, ...]
    slots: tuple[int, ...]  # per input of the graph: which operand
    known: dict[int, Array]  # inputs of the graph that are one number
    shapes: tuple[Shape, ...]  # how operands broadcast; not always as they are declared

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
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return along_axis(_single(node), node.required(0), int(attr(node, "axis")))
    if node.op == "BatchNormalization":
        return _batch_norm(node)
    return _single(node)


# X, scale, B, mean, var and then the standard's formula, inference mode.
_BATCH_NORM = [
    ("Sub", (0, 3)),
    ("Add", (4, 5)),
    ("Sqrt", (7,)),
    ("Div", (6, 8)),
    ("Mul", (9, 1)),
    ("Add", (10, 2)),
]


def _batch_norm(node: Node) -> Body:
    """(X - mean) / sqrt(var + epsilon) * scale + B along axis 1; folded where it is known."""
    x = node.required(0)
    scale, bias, mean, var = (node.required(slot) for slot in range(1, 5))
    epsilon = float(attr(node, "epsilon"))
    known = [value.constant for value in (scale, bias, mean, var)]
    arrays = [np.asarray(array, np.float64) for array in known if array is not None]
    axis = min(1, len(x.shape) - 1)
    if len(arrays) == 4:
        factor = arrays[0] / np.sqrt(arrays[3] + epsilon)
        offset = arrays[1] - arrays[2] * factor
        values = [x, _constant("factor", factor, x.dtype), _constant("offset", offset, x.dtype)]
        body = chain(node, values, [("Mul", (0, 1)), ("Add", (3, 2))], x.dtype)
    else:
        small = _constant("epsilon", np.array(epsilon), x.dtype)
        body = chain(node, [x, scale, bias, mean, var, small], _BATCH_NORM, x.dtype)
    return along_axis(body, x, axis)


def _constant(name: str, array: Array, dtype: DType) -> Value:
    value = Value(name, TensorType(dtype, array.shape))
    value.constant = array.astype(dtype.numpy)
    return value


def _single(node: Node) -> Body:
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


def along_axis(body: Body, x: Value, axis: int) -> Body:
    """The body with vectors beside `x` broadcast along one of its axes instead of the last one."""
    rank = len(x.shape)
    ones: tuple[Dim, ...] = (1,) * (rank - 1 - axis % max(rank, 1))

    def spread(value: Value) -> Shape:
        is_vector = value is not x and len(value.shape) == 1 and rank > 0
        return (*value.shape, *ones) if is_vector else value.shape

    return replace(body, shapes=tuple(map(spread, body.operands)))


def chain(
    node: Node, values: list[Value], steps: list[tuple[str, tuple[int, ...]]], dtype: DType
) -> Body:
    """A body from operators on earlier results: index i is input i, then the steps in order."""
    graph = Graph(node.op.lower())
    found = [graph.add_input("x", TensorType(value.dtype, ())) for value in values]
    for op, args in steps:
        made = graph.add(op, [found[i] for i in args], types=[TensorType(dtype, ())])
        found.append(made.output)
    graph.set_outputs([found[-1]])
    return _bound(graph, values)


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
    return Body(graph, operands, slots, known, tuple(value.shape for value in operands))

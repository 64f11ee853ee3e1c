"""Bodies: elementwise nodes copied into a nested graph that works on single elements."""

from __future__ import annotations

from collections.abc import Sequence

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.table import lookup
from tuili.passes.quantized.parts import BYTES
from tuili.tensors import DType, numel


class Body:
    """A body under construction; `operands` are the outer values that its inputs stand for."""

    def __init__(self, graph: Graph | None = None, operands: Sequence[Value] = ()) -> None:
        self.graph = graph or Graph("body")
        self.operands = list(operands)
        self._inner: dict[Value, Value] = dict(zip(operands, self.graph.inputs, strict=True))

    def bind(self, outer: Value, inner: Value) -> None:
        """Let `inner` stand for an outer value from now on."""
        self._inner[outer] = inner

    def operand(self, outer: Value) -> Value:
        """The inner value of an outer one; a new input on first use."""
        if outer not in self._inner:
            self._inner[outer] = self.graph.add_input(f"x{len(self.operands)}", element(outer))
            self.operands.append(outer)
        return self._inner[outer]

    def copy(self, node: Node) -> None:
        """Add the node, or what is in the body of a `Fused` node; its output is bound."""
        inputs = [None if value is None else self.operand(value) for value in node.inputs]
        body = node.attrs.get("body")
        if isinstance(body, Graph):
            self.bind(node.output, _inline(self.graph, body, [v for v in inputs if v is not None]))
            return
        made = self.graph.add(
            node.op, inputs, node.attrs, outputs=[_name(node)], types=[element(node.output)]
        )
        self.bind(node.output, made.output)


def _name(node: Node) -> str:
    return node.op.split("::")[-1].lower()


def element(value: Value) -> TensorType:
    """The type of one element."""
    return TensorType(value.dtype, ())


def _inline(into: Graph, body: Graph, arguments: Sequence[Value]) -> Value:
    inner = dict(zip(body.inputs, arguments, strict=True))
    for constant in body.constants.values():
        assert constant.constant is not None
        inner[constant] = into.add_constant(constant.constant, constant.name)
    for node in body.nodes:
        inputs = [None if value is None else inner[value] for value in node.inputs]
        types = [value.type for value in node.outputs]
        made = into.add(node.op, inputs, node.attrs, outputs=[_name(node)], types=types)
        inner[node.output] = made.output
    return inner[body.outputs[0]]


def is_in_vectors(node: Node) -> bool:
    """Whether kernels compute the body of a node in vectors: no wide codes, no whole numbers.

    Blocked data and the stores of products need it.
    """
    body = node.attrs.get("body")
    kinds = {value.dtype for value in body.defined()} if isinstance(body, Graph) else set[DType]()
    return kinds <= {DType.F32, DType.BOOL, *BYTES}


def is_elementwise(node: Node) -> bool:
    """Whether every output element depends on one element of each input."""
    plain = len(node.outputs) == 1 and isinstance(node.output.type, TensorType)
    known = plain and node.output.tensor.shape is not None
    if not known or not (node.op == "Fused" or lookup(node.op).elementwise or _is_coding(node)):
        return False
    types = [value.type for value in (*node.inputs, node.output) if value is not None]
    return all(isinstance(type_, TensorType) and type_.dtype not in _NO_NUMBERS for type_ in types)


def _is_coding(node: Node) -> bool:
    """To or from codes with one scale and one zero point."""
    if node.op not in ("QuantizeLinear", "DequantizeLinear") or node.attrs.get("block_size"):
        return False
    rest = [value for value in node.inputs[1:] if value is not None]
    return all(value.is_constant and numel(value.shape) == 1 for value in rest)


_NO_NUMBERS = (DType.STR, DType.C64, DType.C128)

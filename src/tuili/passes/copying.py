"""Copies of nodes, nested graphs and all, that read other values in the place of some."""

from __future__ import annotations

from tuili.ir import Graph, Node, TensorType, Value, ValueType
from tuili.ops.contents import symbols_in


class Copying:
    """Copies into a graph, in front of one of its nodes; `inner` maps what is copied to its copy.

    Names get a mark, so that errors and reports tell the copies of a node apart.
    """

    def __init__(self, into: Graph, before: Node | None, mark: str, bound: set[str]) -> None:
        self._into = into
        self._before = before
        self._mark = mark
        self._bound = bound  # the symbols that mean the same in every copy
        self.inner: dict[Value, Value] = {}

    def value(self, value: Value) -> Value:
        """The copy of a value, or itself when it comes from outside."""
        return self.inner.get(value, value)

    def node(self, node: Node) -> None:
        """Copy a node."""
        made = self._into.add(
            node.op,
            [None if value is None else self.value(value) for value in node.inputs],
            {key: self._graph(attr) if isinstance(attr, Graph) else attr
             for key, attr in node.attrs.items()},
            outputs=[f"{value.name}.{self._mark}" for value in node.outputs],
            types=[self._type(value.type) for value in node.outputs],
            name=f"{node.name}.{self._mark}" if node.name else "",
            before=self._before,
        )  # fmt: skip
        self.inner.update(zip(node.outputs, made.outputs, strict=True))

    def _graph(self, graph: Graph) -> Graph:
        """Copy a nested graph."""
        made = Graph(graph.name, self._into)
        copying = Copying(made, None, self._mark, self._bound)
        copying.inner = dict(self.inner)
        for value in graph.inputs:
            own = made.add_input(f"{value.name}.{self._mark}", self._type(value.type))
            copying.inner[value] = own
        for value in graph.constants.values():
            assert value.constant is not None, "a constant has contents"
            copying.inner[value] = made.add_constant(value.constant, value.name)
        for node in graph.nodes:
            copying.node(node)
        made.set_outputs(copying.value(value) for value in graph.outputs)
        return made

    def _type(self, type_: ValueType | None) -> ValueType | None:
        """The type without the sizes that may differ between copies."""
        if not isinstance(type_, TensorType) or symbols_in(type_.shape or ()) <= self._bound:
            return type_
        return TensorType(type_.dtype, None)

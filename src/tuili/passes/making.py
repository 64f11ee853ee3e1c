"""Making: how a pass writes the nodes that replace one; their types are known at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.ir import Attr, Graph, Node, TensorType, Value
from tuili.ops.contents import Contents
from tuili.ops.infer import infer_node
from tuili.passes.fold import give_way
from tuili.tensors import Array, Dim, Shape


class Making:
    """Nodes in front of the one that they replace.

    m = Making(graph, node, contents)
    y = m("Add", m("MatMul", x, w), m.constant(bias))
    m.replace(y)
    """

    def __init__(self, graph: Graph, node: Node, contents: Contents) -> None:
        self._graph = graph
        self.node = node
        self._contents = contents

    def __call__(self, op: str, *inputs: Value | Array | np.generic | None, **attrs: Attr) -> Value:
        """The only output of a new node; arrays become constants."""
        return self.all(op, *inputs, outputs=1, **attrs)[0]

    def all(
        self, op: str, *inputs: Value | Array | np.generic | None, outputs: int, **attrs: Attr
    ) -> Sequence[Value]:
        """The outputs of a new node."""
        given = [
            each if each is None or isinstance(each, Value) else self.constant(np.asarray(each))
            for each in inputs
        ]
        names = [""] * outputs
        made = self._graph.add(
            op, given, attrs, outputs=names, name=self.node.name, before=self.node
        )
        infer_node(made, self._contents)
        return made.outputs

    def dims(self, shape: Shape) -> Value:
        """A shape as a vector; a constant when it is known."""
        if all(isinstance(dim, int) for dim in shape):
            return self.constant(np.array(shape, np.int64))
        return self("Dims", values=tuple(shape), rank0=0)

    def constant(self, array: Array) -> Value:
        """A constant."""
        return self._graph.add_constant(array, f"{self.node.output.name}_const")

    def replace(self, *values: Value) -> None:
        """Let values take the place of the node's outputs, and the node go."""
        for old, new in zip(self.node.outputs, values, strict=True):
            give_way(self._graph, old, new)
        self._graph.remove(self.node)


def shaped(m: Making, x: Value, shape: Shape) -> Value:
    """The value in another shape of as many elements."""
    if x.shape == shape:
        return x
    zero = {"allowzero": 1} if 0 in shape else {}
    return m("Reshape", x, m.dims(shape), **zero)


def is_known(value: Value | None) -> bool:
    """Whether a value that is there is a tensor of a known shape."""
    return value is None or (isinstance(value.type, TensorType) and value.type.shape is not None)


def counted(m: Making, size: Dim) -> Value:
    """0, 1 ... size - 1."""
    if isinstance(size, int):
        return m.constant(np.arange(size))
    return m("Range", np.int64(0), m("Dims", values=(size,), rank0=1), np.int64(1))

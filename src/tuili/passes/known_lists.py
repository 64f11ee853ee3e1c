"""Lists whose items are known: what reads an item, their number or all joined reads the items.

A sequence runs in Python, and what is taken out of it has no known shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.branches import own
from tuili.passes.fold import give_way

MOST_PIECES = 256  # of a tensor that is split


def know_lists(graph: Graph, contents: Contents) -> bool:
    """Replace what reads known lists, in nested graphs too; the lists themselves become dead."""
    return _Lists(contents).replace_in(graph)


class _Lists:
    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._known: dict[Value, list[Value] | None] = {}
        self._readers: dict[str, Callable[[Graph, Node, list[Value]], Value | None]] = {
            "SequenceAt": self._at,
            "SequenceLength": _length,
            "ConcatFromSequence": _join,
        }

    def replace_in(self, graph: Graph) -> bool:
        changed = False
        for node in list(graph.nodes):
            for nested in node.graphs():
                changed |= self.replace_in(nested)
            if node.op == "SplitToSequence":
                changed |= self._split(graph, node)
            reader = self._readers.get(node.op)
            items = None if reader is None else self._items(node.required(0))
            new = None if reader is None or items is None else reader(graph, node, items)
            if new is not None:
                give_way(graph, node.output, own(graph, node, new))
                graph.remove(node)
                changed = True
        return changed

    # -- what is in a list ---------------------------------------------------------------------

    def _items(self, value: Value) -> list[Value] | None:
        if value not in self._known:
            self._known[value] = self._made(value.producer)
        return self._known[value]

    def _made(self, node: Node | None) -> list[Value] | None:
        if node is None:
            return None
        if node.op == "SequenceEmpty":
            return []
        if node.op == "SequenceConstruct":
            return [value for value in node.inputs if value is not None]
        if node.op not in ("SequenceInsert", "SequenceErase", "Identity"):
            return None
        items = self._items(node.required(0))
        if items is None or node.op == "Identity":
            return items
        change = self._inserted if node.op == "SequenceInsert" else self._left
        return change(node, items)

    def _inserted(self, node: Node, items: list[Value]) -> list[Value] | None:
        at = len(items) if node.input(2) is None else self._contents.number(node.input(2))
        if at is None or not -len(items) <= at <= len(items):
            return None
        at += len(items) * (at < 0)
        return [*items[:at], node.required(1), *items[at:]]

    def _left(self, node: Node, items: list[Value]) -> list[Value] | None:
        at = -1 if node.input(1) is None else self._contents.number(node.input(1))
        if at is None or not -len(items) <= at < len(items):
            return None
        at += len(items) * (at < 0)
        return [*items[:at], *items[at + 1 :]]

    # -- what reads it -------------------------------------------------------------------------

    def _at(self, graph: Graph, node: Node, items: list[Value]) -> Value | None:
        at = self._contents.number(node.required(1))
        return items[at] if at is not None and -len(items) <= at < len(items) else None

    def _split(self, graph: Graph, node: Node) -> bool:
        """Let a tensor that is split into a known number of pieces be split without a list."""
        sizes = self._sizes(node)
        if sizes is None or not 0 < len(sizes) <= MOST_PIECES:
            return False
        axis, name = int(attr(node, "axis")), node.output.name
        given = graph.add_constant(np.array(sizes, np.int64), f"{name}.sizes")
        names = [f"{name}.{index}" for index in range(len(sizes))]
        inputs = [node.required(0), given]
        made = graph.add(
            "Split", inputs, {"axis": axis}, outputs=names, name=node.name, before=node
        )
        pieces = list(made.outputs)
        split = node.input(1)
        single = split is None or (self._contents.number(split) == 1 and split.shape == ())
        if single and not attr(node, "keepdims"):
            axes = graph.add_constant(np.array([axis]), "axes")
            pieces = [graph.add("Squeeze", [each, axes], before=node).output for each in pieces]
        seq = graph.add("SequenceConstruct", pieces, types=[node.output.type], before=node)
        give_way(graph, node.output, seq.output)
        graph.remove(node)
        return True

    def _sizes(self, node: Node) -> list[int] | None:
        data, split = node.required(0), node.input(1)
        if not isinstance(data.type, TensorType) or not data.type.shape:
            return None
        size = data.shape[int(attr(node, "axis"))]
        known = (1,) if split is None else self._contents.dims(split)
        if known is None or not all(isinstance(dim, int) for dim in known):
            return None
        sizes = [dim for dim in known if isinstance(dim, int)]
        if split is not None and split.shape:
            return sizes
        if not isinstance(size, int) or len(sizes) != 1 or sizes[0] < 1:
            return None
        return [min(sizes[0], size - start) for start in range(0, size, sizes[0])]


def _length(graph: Graph, node: Node, items: list[Value]) -> Value:
    return graph.add_constant(np.array(len(items), np.int64), node.output.name)


def _join(graph: Graph, node: Node, items: list[Value]) -> Value | None:
    if not items:
        return None  # an error of the run
    axis = int(attr(node, "axis"))
    if attr(node, "new_axis"):
        axes = graph.add_constant(np.array([axis]), "axes")
        items = [graph.add("Unsqueeze", [each, axes], before=node).output for each in items]
    made = graph.add("Concat", items, {"axis": axis}, name=node.name, before=node)
    return made.output

"""A convolution over a volume whose windows lie side by side becomes one product of matrices.

That is how models of video begin: every patch is cut out once, so nothing is copied twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import symbols_in
from tuili.ops.table import attributes
from tuili.ops.windows import defaults
from tuili.passes.fold import bound_symbols, give_way, shape_value
from tuili.tensors import Dim, Shape, floor_div, numel


def volume_patches(graph: Graph) -> bool:
    """Rewrite every such convolution of a constant kernel."""
    bound = bound_symbols(graph)
    found = [node for node in graph.nodes if node.op == "Conv" and _is_cut(node, bound)]
    for node in found:
        _Rewrite(graph, node).run()
    return bool(found)


def _is_cut(node: Node, bound: set[str]) -> bool:
    type_, weights = node.required(0).type, node.required(1).constant
    if weights is None or weights.ndim != 5 or "epilogue" in node.attrs:
        return False
    if not isinstance(type_, TensorType) or type_.shape is None or type_.layout:
        return False
    attrs, kernel = attributes(node), weights.shape[2:]
    # One of a single tap is a convolution of pictures: there is nothing to cut.
    several = max(kernel) > 1 and attrs["group"] == 1
    whole = attrs["auto_pad"] in ("NOTSET", "VALID") and several
    beside = defaults(attrs["strides"], 3, 1) == kernel and not any(attrs["pads"] or ())
    plain = all(each == 1 for each in defaults(attrs["dilations"], 3, 1))
    return whole and beside and plain and symbols_in(type_.shape) <= bound


class _Rewrite:
    """The nodes that stand for one convolution."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self._graph = graph
        self._node = node

    def run(self) -> None:
        """Cut, order by patch, multiply, order by channel."""
        x, weights = self._node.required(0), self._node.required(1).constant
        assert weights is not None  # _is_cut
        kernel, outputs = weights.shape[2:], weights.shape[0]
        batch, channels, *sizes = x.shape
        counts = [floor_div(size, taps) for size, taps in zip(sizes, kernel, strict=True)]
        split = [dim for pair in zip(counts, kernel, strict=True) for dim in pair]
        cut = self._reshaped(self._cropped(x, counts, kernel), (batch, channels, *split))
        rows = self._transposed(cut, (0, 2, 4, 6, 1, 3, 5, 7))
        patches = self._reshaped(rows, (numel((batch, *counts)), weights[0].size))
        matrix = np.ascontiguousarray(weights.reshape(outputs, -1).T)
        y = self._add("MatMul", [patches, matrix], (patches.shape[0], outputs))
        if (bias := self._node.input(2)) is not None:
            y = self._add("Add", [y, bias], y.shape)
        y = self._transposed(self._reshaped(y, (batch, *counts, outputs)), (0, 4, 1, 2, 3))
        give_way(self._graph, self._node.output, y)
        self._graph.remove(self._node)

    def _cropped(self, x: Value, counts: list[Dim], kernel: tuple[int, ...]) -> Value:
        """Without what is left behind the last whole window."""
        ends = tuple(count * taps for count, taps in zip(counts, kernel, strict=True))
        if ends == x.shape[2:]:
            return x
        first, axes = np.zeros(3, np.int64), np.array([2, 3, 4])
        last = shape_value(self._graph, ends, self._node)
        return self._add("Slice", [x, first, last, axes], (*x.shape[:2], *ends))

    def _reshaped(self, value: Value, shape: Shape) -> Value:
        zero = {"allowzero": 1} if 0 in shape else {}
        return self._add(
            "Reshape", [value, shape_value(self._graph, shape, self._node)], shape, **zero
        )

    def _transposed(self, value: Value, perm: tuple[int, ...]) -> Value:
        shape = tuple(value.shape[axis] for axis in perm)
        return self._add("Transpose", [value], shape, perm=perm)

    def _add(self, op: str, inputs: list[Any], shape: Shape, **attrs: Any) -> Value:
        values = [
            self._graph.add_constant(each) if isinstance(each, np.ndarray) else each
            for each in inputs
        ]
        types = [TensorType(self._node.output.dtype, shape)]
        return self._graph.add(op, values, attrs, types=types, before=self._node).output

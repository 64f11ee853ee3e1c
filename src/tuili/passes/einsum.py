"""Einsum becomes transpositions, sums and matrix products, two operands at a time.

The letters of two terms and of what is wanted fall into four groups: in both terms and wanted
(batch), in both and summed over (depth), and wanted from one term only (rows, columns). So the pair
is MatMul([batch, rows, depth], [batch, depth, columns]), or a broadcast product without depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuili.ir import Attr, Graph, Node, TensorType, Value
from tuili.ops.bounds import simpler
from tuili.ops.table import attr
from tuili.passes.fold import give_way, shape_value
from tuili.tensors import Dim, DType, Shape, numel

_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)
_FIRST_HIDDEN = 0x2460  # letters for the axes behind an ellipsis


@dataclass(frozen=True, slots=True)
class _Term:
    """A value whose axes have letters."""

    value: Value
    letters: str

    def dim(self, letter: str) -> Dim:
        return self.value.shape[self.letters.index(letter)]


def einsum_to_matmul(graph: Graph) -> bool:
    """Rewrite every Einsum of floats; those that take a diagonal stay."""
    changed = False
    for node in [node for node in graph.nodes if node.op == "Einsum"]:
        terms, wanted = _letters(node)
        sizes = _sizes(terms) if node.output.dtype in _FLOATS else None
        if sizes:
            _rewrite(graph, node, terms, wanted, sizes)
            changed = True
    return changed


def _letters(node: Node) -> tuple[list[_Term], str]:
    """The terms and the result with a letter for every axis; no terms where ranks are unknown."""
    left, arrow, right = str(attr(node, "equation")).replace(" ", "").partition("->")
    texts = left.split(",")
    values = [value for value in node.inputs if value is not None]
    if any(not isinstance(v.type, TensorType) or v.type.shape is None for v in values):
        return [], ""
    hidden = [
        len(value.shape) - len(text.replace("...", ""))
        for value, text in zip(values, texts, strict=True)
    ]
    most = max(hidden)
    axes = "".join(chr(_FIRST_HIDDEN + index) for index in range(most))
    spelled = [
        text.replace("...", axes[most - count :]) for text, count in zip(texts, hidden, strict=True)
    ]
    if arrow:
        wanted = right.replace("...", axes)
    else:
        joined = "".join(texts).replace(".", "")
        wanted = axes + "".join(x for x in sorted(set(joined)) if joined.count(x) == 1)
    return [_Term(v, letters) for v, letters in zip(values, spelled, strict=True)], wanted


def _sizes(terms: Sequence[_Term]) -> dict[str, Dim] | None:
    """The size of every letter; None where a diagonal is taken, or a size of 1 meets another one.

    Open sizes of one letter are equal, whatever their names: the shape rule has the run check it.
    """
    if any(len(set(term.letters)) < len(term.letters) for term in terms):
        return None
    sizes: dict[str, Dim] = {}
    for term in terms:
        for letter, dim in zip(term.letters, term.value.shape, strict=True):
            known = sizes.get(letter, dim)
            if known != dim and 1 in (known, dim):
                return None
            sizes[letter] = simpler(known, dim)
    return sizes


def _rewrite(
    graph: Graph, node: Node, terms: list[_Term], wanted: str, sizes: dict[str, Dim]
) -> None:
    build = _Builder(graph, node)
    product, *rest = [build.sized(term, sizes) for term in terms]
    for index, term in enumerate(rest):
        later = wanted + "".join(other.letters for other in rest[index + 1 :])
        product = build.multiply(product, term, later)
    result = build.ordered(build.summed(product, wanted), wanted)
    give_way(graph, node.output, result.value)
    graph.remove(node)


class _Builder:
    """Adds typed nodes before the one that they replace."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self._graph = graph
        self._node = node

    def _add(self, op: str, inputs: Sequence[Value | None], shape: Shape, **attrs: Attr) -> Value:
        types = [TensorType(self._node.output.dtype, shape)]
        return self._graph.add(
            op, inputs, attrs, types=types, name=self._node.name, before=self._node
        ).output

    def sized(self, term: _Term, sizes: dict[str, Dim]) -> _Term:
        """With one name for the size of a letter."""
        shape = tuple(sizes[letter] for letter in term.letters)
        return _Term(self._reshaped(term.value, shape), term.letters)

    def summed(self, term: _Term, kept: str) -> _Term:
        """Without the axes whose letters nobody wants."""
        gone = [axis for axis, letter in enumerate(term.letters) if letter not in kept]
        if not gone:
            return term
        letters = "".join(letter for letter in term.letters if letter in kept)
        axes = self._graph.add_constant(np.array(gone, np.int64), "axes")
        shape = tuple(term.dim(letter) for letter in letters)
        return _Term(self._add("ReduceSum", [term.value, axes], shape, keepdims=0), letters)

    def ordered(self, term: _Term, letters: str) -> _Term:
        """With the axes in the order of `letters`."""
        if term.letters == letters:
            return term
        perm = tuple(term.letters.index(letter) for letter in letters)
        shape = tuple(term.dim(letter) for letter in letters)
        return _Term(self._add("Transpose", [term.value], shape, perm=perm), letters)

    def _reshaped(self, value: Value, shape: Shape) -> Value:
        if value.shape == shape:
            return value
        target = shape_value(self._graph, shape, self._node)
        zero = {"allowzero": 1} if 0 in shape else {}
        return self._add("Reshape", [value, target], shape, **zero)

    def multiply(self, a: _Term, b: _Term, wanted: str) -> _Term:
        """The product of two terms, over the letters that only they have."""
        a = self.summed(a, wanted + b.letters)
        b = self.summed(b, wanted + a.letters)
        batch = "".join(x for x in a.letters if x in b.letters and x in wanted)
        depth = "".join(x for x in a.letters if x in b.letters and x not in wanted)
        rows = "".join(x for x in a.letters if x not in b.letters)
        columns = "".join(x for x in b.letters if x not in a.letters)
        sizes = dict(zip(a.letters + b.letters, (*a.value.shape, *b.value.shape), strict=True))

        def dims(letters: str) -> Shape:
            return tuple(sizes[letter] for letter in letters)

        left = self.ordered(a, batch + rows + depth).value
        right = self.ordered(b, batch + depth + columns).value
        m, k, n = numel(dims(rows)), numel(dims(depth)), numel(dims(columns))
        left = self._reshaped(left, (*dims(batch), m, k))
        right = self._reshaped(right, (*dims(batch), k, n))
        inputs = [left, right, None] if depth else [left, right]
        found = self._add("MatMul" if depth else "Mul", inputs, (*dims(batch), m, n))
        letters = batch + rows + columns
        return _Term(self._reshaped(found, dims(letters)), letters)

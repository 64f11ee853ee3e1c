"""Rotary embeddings become products with cosines and sines (Su et al., arXiv 2104.09864)."""

from __future__ import annotations

from typing import Final

import numpy as np

from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.passes.attention.parts import Heads, is_known_f32, split_heads
from tuili.passes.making import Making, counted, is_known, shaped
from tuili.passes.rewrite import Rewrite
from tuili.tensors import Dim


def turned(m: Making, x: Heads, cos: Value, sin: Value, *, interleaved: bool) -> Heads:
    """Pairs of elements turned by angles; cosines and sines are [B, S, angles].

    Elements behind the first `2 * angles` of each head stay.
    """
    size, angles = x.dim("d"), cos.shape[2]
    assert isinstance(angles, int)
    heads_axis = x.order.index("h")
    cos, sin = (m("Unsqueeze", each, np.array([heads_axis])) for each in (cos, sin))
    rest: list[Value] = []
    front = x.value
    if size != 2 * angles:
        sizes = m.dims((2 * angles, size - 2 * angles))
        front, *rest = m.all("Split", x.value, sizes, outputs=2, axis=3)
    pairs = _interleaved(m, front, cos, sin) if interleaved else _halves(m, front, cos, sin)
    return Heads(m("Concat", *pairs, *rest, axis=3) if rest else pairs[0], x.order)


def _halves(m: Making, x: Value, cos: Value, sin: Value) -> list[Value]:
    """The first half of a head against the second: all of it, and its halves exchanged."""
    lead, size = x.shape[:3], x.shape[3]
    apart = shaped(m, x, (*lead, 2, size // 2))
    other = shaped(m, m("Gather", apart, np.array([1, 0], np.int64), axis=3), x.shape)
    cos, sin = m("Concat", cos, cos, axis=3), m("Concat", m("Neg", sin), sin, axis=3)
    return [m("Add", m("Mul", x, cos), m("Mul", other, sin))]


def _interleaved(m: Making, x: Value, cos: Value, sin: Value) -> list[Value]:
    """Each even element against the next one."""
    lead, size = x.shape[:3], x.shape[3]
    apart = shaped(m, x, (*lead, size // 2, 2))
    a, b = (m("Gather", apart, np.int64(at), axis=4) for at in (0, 1))
    both = [m("Unsqueeze", each, np.array([4])) for each in _rotated(m, a, b, cos, sin)]
    return [shaped(m, m("Concat", *both, axis=4), x.shape)]


def _rotated(m: Making, a: Value, b: Value, cos: Value, sin: Value) -> tuple[Value, Value]:
    """(a, b) turned by the angles."""
    first = m("Sub", m("Mul", cos, a), m("Mul", sin, b))
    return first, m("Add", m("Mul", sin, a), m("Mul", cos, b))


def _finish(m: Making, x: Heads) -> None:
    """As the input was: heads apart, or in one axis."""
    m.replace(shaped(m, x.value, m.node.required(0).shape))


# -- the standard's ----------------------------------------------------------------------------


def _has_angles(cache: Value) -> bool:
    return is_known_f32(cache, 2, 3) and isinstance(cache.shape[-1], int)


def _is_rotary(node: Node) -> bool:
    x = node.required(0)
    caches = node.required(1), node.required(2)
    if not is_known_f32(x, 3, 4) or not all(map(_has_angles, caches)):
        return False
    return len(x.shape) == 4 or bool(attr(node, "num_heads"))


def _rotary(m: Making) -> None:
    node = m.node
    x = split_heads(m, node.required(0), attr(node, "num_heads"))
    cos, sin = node.required(1), node.required(2)
    places = node.input(3)
    if places is not None:
        cos, sin = (m("Gather", each, places, axis=0) for each in (cos, sin))
    _finish(m, turned(m, x, cos, sin, interleaved=bool(attr(node, "interleaved"))))


# -- com.microsoft -----------------------------------------------------------------------------


def _is_contrib(node: Node) -> bool:
    x, places = node.required(0), node.required(1)
    caches = node.required(2), node.required(3)
    if not is_known_f32(x, 3, 4) or not is_known(places) or not all(map(_has_angles, caches)):
        return False
    heads = _heads(node, x, caches[0])
    return len(x.shape) == 4 or heads is not None


def _heads(node: Node, x: Value, cos: Value) -> Dim | None:
    count, width = attr(node, "num_heads"), attr(node, "rotary_embedding_dim")
    if count or len(x.shape) == 4:
        return count
    size = width or 2 * cos.shape[-1]
    total = x.shape[-1]
    whole = isinstance(total, int) and isinstance(size, int) and total % size == 0
    return total // size if whole else None


def _contrib(m: Making) -> None:
    node = m.node
    given, places, cos, sin = (node.required(at) for at in range(4))
    x = split_heads(m, given, _heads(node, given, cos) or 0)
    if len(places.shape) == 1:
        steps = m("Add", places, counted(m, x.dim("s")))
        places = m("Expand", steps, m.dims((x.dim("b"), x.dim("s"))))
    cos, sin = (m("Gather", each, places, axis=0) for each in (cos, sin))
    _finish(m, turned(m, x, cos, sin, interleaved=bool(attr(node, "interleaved"))))


ROTARY: Final = {
    "RotaryEmbedding": Rewrite(_rotary, _is_rotary),
    "com.microsoft::RotaryEmbedding": Rewrite(_contrib, _is_contrib),
}

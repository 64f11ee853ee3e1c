"""Parts that attention operators are made of: heads, masks, the product itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np

from tuili.ir import Node, TensorType, Value
from tuili.ops.table import attr
from tuili.passes.making import Making, counted, shaped
from tuili.tensors import Array, Dim, DType

MINUS_INF: Final = np.float32(-np.inf)
_SWAP: Final = (0, 2, 1, 3)


@dataclass(frozen=True, slots=True)
class Heads:
    """Queries, keys or values, in the order of axes `bhsd` or `bshd`."""

    value: Value
    order: str = "bhsd"

    def dim(self, axis: str) -> Dim:
        """The size of an axis: batch, heads, sequence or depth."""
        return self.value.shape[self.order.index(axis)]


def is_known_f32(value: Value | None, *ranks: int) -> bool:
    """Whether a value that is there is an f32 tensor of a known shape and one of the ranks."""
    if value is None:
        return True
    type_ = value.type
    known = isinstance(type_, TensorType) and type_.shape is not None and type_.dtype is DType.F32
    return known and (not ranks or len(value.shape) in ranks)


def is_read(node: Node, index: int) -> bool:
    """Whether anybody wants an output."""
    return index < len(node.outputs) and bool(node.outputs[index].uses)


def scale_of(m: Making, size: Dim) -> float:
    """The attribute, or one over the root of the depth, which `fits` has seen to be a number."""
    given = attr(m.node, "scale")
    assert isinstance(size, int)
    return float(given or 1 / np.sqrt(size))


def is_number(dim: Dim) -> bool:
    return isinstance(dim, int) and dim > 0


def finish(m: Making, y: Value, k: Heads, v: Heads, shown: Value | None = None) -> None:
    """The outputs: the answer, the keys and values for the next step, the scores."""
    makers: tuple[Any, ...] = (
        lambda: y,
        lambda: heads_first(m, k),
        lambda: heads_first(m, v),
        lambda: shown or y,
    )
    wanted = [index == 0 or is_read(m.node, index) for index in range(len(m.node.outputs))]
    m.replace(*(makers[index]() if needed else y for index, needed in enumerate(wanted)))


# -- heads -------------------------------------------------------------------------------------


def split_heads(m: Making, x: Value, count: Dim) -> Heads:
    """[B, S, heads * D] with its heads apart; rank 4 has them."""
    if len(x.shape) == 4:
        return Heads(x)
    batch, length, width = x.shape
    return Heads(shaped(m, x, (batch, length, count, width // count)), "bshd")


def heads_first(m: Making, heads: Heads) -> Value:
    """[B, heads, S, D]."""
    return heads.value if heads.order == "bhsd" else m("Transpose", heads.value, perm=_SWAP)


def extended(m: Making, past: Value | None, new: Heads) -> Heads:
    """What is new behind what there was, [B, heads, P, D]."""
    if past is None:
        return new
    return Heads(m("Concat", past, heads_first(m, new), axis=2))


def merged(m: Making, y: Heads) -> Value:
    """[B, S, heads * D]."""
    shape = (y.dim("b"), y.dim("s"), y.dim("h") * y.dim("d"))
    turned = y.value if y.order == "bshd" else m("Transpose", y.value, perm=_SWAP)
    return shaped(m, turned, shape)


# -- masks -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grid:
    """The places of queries, [S, 1] or [B, 1, S, 1], and of keys, [T]."""

    rows: Value
    keys: Value

    def distance(self, m: Making) -> Value:
        """How far a key lies before a query."""
        return m("Sub", self.rows, self.keys)


def grid_of(m: Making, rows: Dim, keys: Dim, offset: Dim | Value) -> Grid:
    """Queries begin at the place `offset`: a number, or one a row of the batch, [B, 1, 1, 1]."""
    places = m("Unsqueeze", counted(m, rows), np.array([1]))
    if isinstance(offset, Value):
        places = m("Add", places, offset)
    elif offset != 0:
        places = m("Add", places, m.dims((offset,)))
    return Grid(places, counted(m, keys))


def causal_offset(rows: Dim, keys: Dim) -> Dim:
    """Queries stand at the end of the keys."""
    return keys - rows


def at_least(m: Making, x: Value, number: int) -> Value:
    """x >= number."""
    return m("GreaterOrEqual", x, np.int64(number))


def all_of(m: Making, seen: Sequence[Value]) -> Value | None:
    """Where all conditions hold; None when there are none."""
    return reduce(lambda a, b: m("And", a, b), seen) if seen else None


def filled(m: Making, seen: Value | None, filler: np.float32 = MINUS_INF) -> Value | None:
    """0 where a key is seen, else the filler."""
    return None if seen is None else m("Where", seen, np.float32(0), filler)


def total(m: Making, *terms: Value | None) -> Value | None:
    """The sum of the terms that are there."""
    given = [term for term in terms if term is not None]
    return reduce(lambda a, b: m("Add", a, b), given) if given else None


def over_keys(m: Making, mask: Value, keys: Dim, none: Array) -> Value:
    """A mask whose last dim is certain to be `keys`; `none` is what changes nothing.

    Where the dims are spelt differently, they are compared when the model runs.
    """
    if mask.shape and mask.shape[-1] == keys:
        return mask
    blank = m("Expand", none, m.dims((keys,)))
    return m("And" if mask.dtype is DType.BOOL else "Add", mask, blank)


# -- the product -------------------------------------------------------------------------------


def attended(m: Making, q: Heads, k: Heads, v: Heads, mask: Value | None, scale: float) -> Heads:
    """softmax(q k' * scale + mask) v as [B, S, heads, D]; what sees nothing is 0."""
    y = m(
        "FusedAttention", q.value, k.value, v.value, mask,
        scale=scale, q_order=q.order, k_order=k.order, v_order=v.order, y_order="bshd",
    )  # fmt: skip
    return Heads(y, "bshd")


@dataclass(frozen=True, slots=True)
class Scores:
    """What is made of the products of queries and keys.

    `softcap` bounds them, if it is not 0; `sink` [heads] is one more score of every row, whose key
    has no value.
    """

    scale: float
    softcap: float = 0.0
    sink: Value | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the fused operator says it."""
        return not self.softcap and self.sink is None


@dataclass(frozen=True, slots=True)
class Spelt:
    """Attention step by step: [B, heads, S, D], and the scores at four moments."""

    y: Heads
    scores: tuple[Value, Value, Value, Value]  # raw, capped, biased, after the softmax


def spelt_out(m: Making, q: Heads, k: Heads, v: Heads, mask: Value | None, kind: Scores) -> Spelt:
    """As `attended`, for what the fused operator does not say."""
    keys = m("Transpose", repeated(m, k, q.dim("h")), perm=(0, 1, 3, 2))
    raw = m("MatMul", m("Mul", heads_first(m, q), np.float32(kind.scale)), keys)
    capped = raw
    if kind.softcap:
        cap = np.float32(kind.softcap)
        capped = m("Mul", m("Tanh", m("Div", raw, cap)), cap)
    biased = capped if mask is None else m("Add", capped, mask)
    odds = m("Softmax", biased, axis=3) if kind.sink is None else _with_sink(m, biased, kind.sink)
    if mask is not None:
        most = m("ReduceMax", mask, np.array([-1]), keepdims=1)
        odds = m("Where", m("Equal", most, MINUS_INF), np.float32(0), odds)
    y = m("MatMul", odds, repeated(m, v, q.dim("h")))
    return Spelt(Heads(y), (raw, capped, biased, odds))


def _with_sink(m: Making, scores: Value, sink: Value) -> Value:
    batch, heads, rows, _ = scores.shape
    column = m("Expand", shaped(m, sink, (1, heads, 1, 1)), m.dims((batch, heads, rows, 1)))
    odds = m("Softmax", m("Concat", scores, column, axis=3), axis=3)
    return m("Slice", odds, np.array([0]), np.array([-1]), np.array([3]))


def repeated(m: Making, x: Heads, heads: Dim) -> Value:
    """[B, heads, T, D], each head of `x` as often as queries share it."""
    value = heads_first(m, x)
    batch, own, length, size = value.shape
    if own == heads:
        return value
    apart = shaped(m, value, (batch, own, 1, length, size))
    spread = m("Expand", apart, m.dims((batch, own, heads // own, length, size)))
    return shaped(m, spread, (batch, heads, length, size))

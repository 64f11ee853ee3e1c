"""Scores of classical models in core operators: samples in, post-transforms, labels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from tuili.ir import Node, TensorType, Value
from tuili.ops.table import attr
from tuili.passes.making import Making
from tuili.tensors import Array, DType

FLOATS = (DType.F32, DType.F64)
_ROWS = np.array([0])
_LAST = np.array([-1])


def is_batch(node: Node) -> bool:
    """Whether the samples are numbers, one row each, or a single one."""
    type_ = node.required(0).type
    if not isinstance(type_, TensorType) or type_.shape is None:
        return False
    return type_.dtype is not DType.STR and len(type_.shape) in (1, 2)


def numbers(node: Node, name: str) -> Array | None:
    """A list attribute as an array; None when it is left out or empty."""
    found: Any = attr(node, name)
    if found is None or len(found) == 0:
        return None
    return np.asarray(found)


def samples(m: Making) -> Value:
    """The samples as a matrix of floats that hold them."""
    x = m.node.required(0)
    if x.dtype not in FLOATS:
        x = m("Cast", x, to=DType.F32)
    return m("Unsqueeze", x, _ROWS) if len(x.shape) == 1 else x


def like(x: Value, value: Any) -> Array:
    """Numbers in the element type of `x`."""
    return np.asarray(value, x.dtype.numpy)


def added(m: Making, scores: Value, bias: Array | None) -> Value:
    """Scores plus base values, where there are any."""
    return scores if bias is None else m("Add", scores, like(scores, bias))


def transformed(m: Making, scores: Value) -> Value:
    """Raw scores [N, C] after the node's post_transform, as f32."""
    return as_f32(m, _TRANSFORMS[str(attr(m.node, "post_transform"))](m, scores))


def can_transform(node: Node) -> bool:
    """Whether the post_transform is one of those below."""
    return attr(node, "post_transform") in _TRANSFORMS


def as_f32(m: Making, scores: Value) -> Value:
    """The element type of all scores on the outside."""
    return scores if scores.dtype is DType.F32 else m("Cast", scores, to=DType.F32)


def _softmax_zero(m: Making, scores: Value) -> Value:
    """Softmax in which scores of zero stay zero; rows of nothing but them become halves."""
    powers = m("Exp", m("Sub", scores, m("ReduceMax", scores, _LAST)))
    counts = m("Greater", m("Abs", scores), like(scores, 1e-7))
    kept = m("Where", counts, powers, like(scores, 0))
    total = m("ReduceSum", kept, _LAST)
    empty = m("Equal", total, like(scores, 0))
    shares = m("Div", kept, m("Where", empty, like(scores, 1), total))
    return m("Where", empty, like(scores, 0.5), shares)


_TRANSFORMS: dict[str, Any] = {
    "NONE": lambda m, scores: scores,
    "SOFTMAX": lambda m, scores: m("Softmax", scores, axis=-1),
    "LOGISTIC": lambda m, scores: m("Sigmoid", scores),
    "SOFTMAX_ZERO": _softmax_zero,
}


def two_sided(m: Making, scores: Value, *, share: bool) -> Value:
    """One score [N, 1] as the scores of two classes; `share` when it is a probability."""
    other = m("Sub", like(scores, 1), scores) if share else m("Neg", scores)
    both = m("Concat", other, scores, axis=1)
    return as_f32(m, both) if share else transformed(m, both)


def above(m: Making, scores: Value, threshold: float) -> Value:
    """The class [N] that one score [N, 1] speaks for."""
    yes = m("Greater", scores, like(scores, threshold))
    return m("Cast", m("Squeeze", yes, np.array([1])), to=DType.I64)


def best(m: Making, scores: Value) -> Value:
    """The class [N] of the highest score."""
    return m("ArgMax", scores, axis=1, keepdims=0)


def labelled(m: Making, chosen: Value, number_attr: str) -> Value:
    """Class indices [N] as class labels."""
    words: Any = attr(m.node, "classlabels_strings")
    if words:
        return m("Gather", np.array(cast(tuple[str, ...], words), object), chosen, axis=0)
    found = numbers(m.node, number_attr)
    if found is None or np.array_equal(found, np.arange(len(found))):
        return chosen
    return m("Gather", found.astype(np.int64), chosen, axis=0)


def num_classes(node: Node, number_attr: str) -> int:
    """How many classes the label attributes name."""
    words: Any = attr(node, "classlabels_strings")
    found: Any = attr(node, number_attr)
    return len(found or words or ())

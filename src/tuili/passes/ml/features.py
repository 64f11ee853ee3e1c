"""Preparing features, as ai.onnx.ml says it, in core operators."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tuili.ir import Node, TensorType, Value
from tuili.ops.ml.features import label_items, label_types
from tuili.ops.table import attr
from tuili.passes.making import Making
from tuili.passes.ml.scores import as_f32, like
from tuili.tensors import DType

MOST_KEYS = 512  # of a table that is searched from one end to the other


def is_numeric(node: Node) -> bool:
    """Whether all inputs are numbers of known rank."""
    types = [value.type for value in node.inputs if value is not None]
    return all(
        isinstance(type_, TensorType) and type_.shape is not None and type_.dtype is not DType.STR
        for type_ in types
    )


def is_plain_batch(node: Node) -> bool:
    """FeatureVectorizer takes parts as they are, or cut to dims that it names."""
    shapes = all(len(value.shape) == 2 for value in node.inputs if value is not None)
    return is_numeric(node) and shapes and attr(node, "inputdimensions") is None


def is_hot(node: Node) -> bool:
    """Whether categories are numbers, each named once."""
    categories = attr(node, "cats_int64s") or ()
    return is_numeric(node) and 0 < len(categories) == len(set(categories))


def is_short_table(node: Node) -> bool:
    """Whether labels are numbers that are looked up among a few, none of them NaN."""
    if not is_numeric(node):
        return False
    keys = label_items(partial(attr, node), "keys")
    numbers = all(isinstance(key, int | float) and not np.isnan(key) for key in keys)
    return numbers and 0 < len(keys) <= MOST_KEYS


def label_encoder(m: Making) -> None:
    """The value of the key that x equals; the last of equal keys counts."""
    x = m.node.required(0)
    of = partial(attr, m.node)
    kind, default = label_types(of)
    table = dict(zip(label_items(of, "keys"), label_items(of, "values"), strict=True))
    values = [*table.values(), default]
    if kind is DType.STR:
        values = [str(value) for value in values]
    column = m("Unsqueeze", x, np.array([-1]))
    same = m("Cast", m("Equal", column, like(x, list(table))), to=DType.I32)
    hit = m("Greater", m("ReduceMax", same, np.array([-1]), keepdims=0), np.int32(0))
    place = m("ArgMax", same, axis=-1, keepdims=0)
    place = m("Where", hit, place, np.int64(len(table)))
    m.replace(m("Gather", np.array(values, kind.numpy), place, axis=0))


def scaler(m: Making) -> None:
    """(x - offset) scale, in f32 where x is no wider."""
    x = m.node.required(0)
    wide = DType.F64 if x.dtype in (DType.F64, DType.I64, DType.I32) else DType.F32
    if x.dtype is not wide:
        x = m("Cast", x, to=wide)
    shift = np.asarray(_attr(m, "offset") or (0.0,), np.float32)
    factor = np.asarray(_attr(m, "scale") or (1.0,), np.float32)
    m.replace(as_f32(m, m("Mul", m("Sub", x, like(x, shift)), like(x, factor))))


def normalizer(m: Making) -> None:
    """x by its norm; rows of zeros stay zeros."""
    x = as_f32(m, m.node.required(0))
    op = {"L1": "ReduceL1", "L2": "ReduceL2"}.get(str(_attr(m, "norm")), "ReduceMax")
    size = m(op, x, np.array([-1]))
    nothing = m("Equal", size, like(x, 0))
    m.replace(m("Div", x, m("Where", nothing, like(x, 1), size)))


def binarizer(m: Making) -> None:
    """Whether x is above the threshold, in the type of x."""
    x = m.node.required(0)
    if not x.dtype.is_float:
        wide = m("Cast", x, to=DType.F64)
        above = m("Greater", wide, like(wide, _attr(m, "threshold")))
    else:
        above = m("Greater", x, like(x, _attr(m, "threshold")))
    m.replace(m("Cast", above, to=x.dtype))


def imputer(m: Making) -> None:
    """What stands for a missing value is replaced."""
    x = m.node.required(0)
    kind = "float" if x.dtype.is_float else "int64"
    old: Any = _attr(m, f"replaced_value_{kind}")
    new = like(x, _attr(m, f"imputed_value_{kind}s"))
    hidden = m("IsNaN", x) if np.isnan(old) else m("Equal", x, like(x, old))
    m.replace(m("Where", hidden, new, x))


def vectorizer(m: Making) -> None:
    """Parts side by side, as f32."""
    parts = [as_f32(m, value) for value in m.node.inputs if value is not None]
    m.replace(m("Concat", *parts, axis=1))


def one_hot(m: Making) -> None:
    """One column per category."""
    x = m.node.required(0)
    if x.dtype is not DType.I64:
        x = m("Cast", x, to=DType.I64)
    column = m("Unsqueeze", x, np.array([-1]))
    same = m("Equal", column, np.asarray(_attr(m, "cats_int64s"), np.int64))
    hot = m("Cast", same, to=DType.F32)
    m.replace(hot if _attr(m, "zeros") else _in_a_category(m, hot))


def _in_a_category(m: Making, hot: Value) -> Value:
    """The same columns; the look-up of the row of a category fails the run where there is none."""
    count = hot.shape[-1]
    assert isinstance(count, int), "there is a column for each category"
    # The number of the category, counted from 1; 0 becomes `count`, which is beyond the table.
    counted = m("ReduceSum", m("Mul", hot, np.arange(1, count + 1, dtype=np.float32)),
                np.array([-1]), keepdims=0)  # fmt: skip
    row = m("Mod", m("Add", m("Cast", counted, to=DType.I64), np.int64(count)), np.int64(count + 1))
    found = m("Gather", np.eye(count, dtype=np.float32), row, axis=0)
    assert found.producer is not None, "it was just made"
    found.producer.name = f"{m.node.name}: an element is in no category (zeros is 0)"
    return found


def _attr(m: Making, name: str) -> Any:
    return attr(m.node, name)

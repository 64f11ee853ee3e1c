"""Scores of classical models: post-transforms, labels, and the shapes of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.activations import sigmoid
from tuili.ops.op import Result
from tuili.ops.site import Site
from tuili.ops.strings import text_array
from tuili.tensors import Array, Dim, DType

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _softmax_zero(scores: Array) -> Array:
    """Softmax in which scores of zero stay zero."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    kept = np.where(np.abs(scores) > 1e-7, powers, 0)
    total = kept.sum(-1, keepdims=True)
    return np.where(total == 0, 0.5, kept / np.where(total == 0, 1, total))


def _probit(scores: Array) -> Array:
    """The inverse of the normal distribution by the approximation that ai.onnx.ml fixes."""
    x = 2 * scores - 1
    log = np.log((1 - x) * (1 + x))
    part = 2 / (np.pi * 0.147) + 0.5 * log
    return np.sqrt(2) * np.sign(x) * np.sqrt(np.sqrt(part * part - log / 0.147) - part)


def transform(scores: Array, name: str) -> Array:
    """Raw scores [N, C] after a post_transform."""
    match name:
        case "SOFTMAX":
            return _softmax(scores)
        case "SOFTMAX_ZERO":
            return _softmax_zero(scores)
        case "LOGISTIC":
            return sigmoid(scores)
        case "PROBIT":
            return _probit(scores)
        case "NONE":
            return scores
        case _:
            raise ValueError(f"unknown post_transform {name!r}; expected {', '.join(TRANSFORMS)}")


def two_sided(scores: Array, name: str, *, share: bool) -> Array:
    """One score [N, 1] as the scores of two classes; `share` when it is a probability."""
    if share:
        return np.concatenate([1 - scores, scores], 1)
    both = np.concatenate([-scores, scores], 1)
    return transform(both, name) if name != "PROBIT" else both


def labels(indices: Array, numbers: Sequence[int] | None, words: Sequence[str] | None) -> Array:
    """Class indices as class labels."""
    if words:
        return text_array([words[int(index)] for index in indices], indices.shape)
    if numbers:
        return np.asarray(numbers, np.int64)[indices]
    return indices.astype(np.int64)


def class_count(attrs: Any, numbers: str) -> int:
    """How many classes the label attributes name."""
    return len(attrs(numbers) or attrs("classlabels_strings") or ())


def rows_of(site: Site) -> Dim:
    """The batch size; one for a single sample."""
    shape = site.need_rank(0, 1, 2)
    return shape[0] if len(shape) == 2 else 1


def need_features(site: Site, count: int, *, or_more: bool = False) -> None:
    """The columns of X are what the model was trained on; trees may get more than they read."""
    columns = site.shape(0)[-1]
    what = f"columns of X against the {count} features of the model"
    if or_more:
        site.at_least(columns, count, what)
    else:
        site.same(columns, count, what)


def classified(site: Site, numbers: str, columns: Dim) -> list[Result]:
    """Labels [N] and scores [N, C] of a classifier."""
    rows = rows_of(site)
    kind = DType.STR if site.attr("classlabels_strings") else DType.I64
    return [TensorType(kind, (rows,)), (rows, columns)]


def matrix(x: Array) -> Array:
    """A batch of samples in floats that hold them."""
    wide = x if x.dtype.name in ("float32", "float64") else x.astype(np.float32)
    return wide.reshape(1, -1) if wide.ndim == 1 else wide

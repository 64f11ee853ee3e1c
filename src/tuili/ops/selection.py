"""Operators that search and count: TopK, NonZero, Unique, OneHot, CumSum, NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.op import Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array


def _top_k_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axis = site.axis(site.attr("axis"), len(shape))
    count = site.dims(1)
    size = shape[axis]
    shape[axis] = site.fresh(axis) if count is None else count[0]
    site.at_least(size, shape[axis], f"elements along axis {axis} against how many are wanted")
    return [shape, shape]


def _top_k(X: Array, K: Array, axis: int, largest: int, sorted: int) -> tuple[Array, Array]:  # noqa: A002
    count = int(np.ravel(K)[0])
    # Stable sorting gives the lower index first among equals, as TopK-24 asks.
    keys = X if not largest else -(X.astype(np.int64) if X.dtype.kind == "u" else X)
    order = np.argsort(keys, axis, kind="stable")
    chosen = np.take(order, np.arange(count), axis)
    return np.take_along_axis(X, chosen, axis), chosen.astype(np.int64)


def _non_zero_shape(site: Site) -> list[Result]:
    return [(site.rank(0), site.fresh(1))]


def _non_zero(X: Array) -> Array:
    return np.array(np.nonzero(np.atleast_1d(X)), np.int64)[: X.ndim]


def _one_hot_shape(site: Site) -> list[Result]:
    indices = list(site.shape(0))
    depth = site.contents.dims(site.value(1))
    if depth is None and site.dtype(1).is_int:
        depth = site.dims(1)
    axis = site.axis(site.attr("axis"), len(indices) + 1)
    indices.insert(axis, site.fresh(axis) if depth is None else depth[0])
    return [indices]


def _one_hot(indices: Array, depth: Array, values: Array, axis: int) -> Array:
    count = int(np.ravel(depth)[0])
    whole = indices.astype(np.int64)
    wrapped = np.where(whole < 0, whole + count, whole)
    hot = wrapped[..., None] == np.arange(count)
    return np.moveaxis(np.where(hot, values[1], values[0]), -1, axis)


def _compress_shape(site: Site) -> list[Result]:
    axis = site.attr("axis")
    if axis is None:
        return [(site.fresh(0),)]
    shape = list(site.shape(0))
    axis = site.axis(axis, len(shape))
    shape[axis] = site.fresh(axis)
    return [shape]


def _compress(data: Array, condition: Array, axis: int | None) -> Array:
    return np.compress(condition, data, axis)


def _cumulative(function: Any, first: int) -> Any:
    def meaning(x: Array, axis: Array, exclusive: int, reverse: int) -> Array:
        along = int(np.ravel(axis)[0])
        data = np.flip(x, along) if reverse else x
        total = function(data, along, dtype=data.dtype)
        if exclusive:
            total = np.roll(total, 1, along)
            np.moveaxis(total, along, 0)[:1] = first
        return np.flip(total, along) if reverse else total

    return meaning


def _unique_shape(site: Site) -> list[Result]:
    axis = site.attr("axis")
    shape = [site.fresh(0)]
    if axis is not None:
        source = site.shape(0)
        axis = site.axis(axis, len(source))
        count = site.fresh(axis)
        return [[*source[:axis], count, *source[axis + 1 :]], (count,), (source[axis],), (count,)]
    size = 1
    for dim in site.shape(0):
        size = size * dim
    return [shape, shape, (size,), shape]


def _unique(X: Array, axis: int | None, sorted: int) -> tuple[Array, ...]:  # noqa: A002
    values, first, inverse, counts = np.unique(
        X, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.ravel()
    if not sorted:
        order = np.argsort(first)
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts = first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


# -- non-max suppression -------------------------------------------------------------------


def _corners(boxes: Array, center_point_box: int) -> Array:
    if center_point_box:
        x, y, w, h = boxes.T
        return np.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], 1)
    y1, x1, y2, x2 = boxes.T
    low, high = np.minimum, np.maximum
    return np.stack([low(y1, y2), low(x1, x2), high(y1, y2), high(x1, x2)], 1)


def _overlaps(box: Array, others: Array) -> Array:
    top_left = np.maximum(box[:2], others[:, :2])
    bottom_right = np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(bottom_right - top_left, 0), 1)
    areas = np.prod(others[:, 2:] - others[:, :2], 1)
    union = np.prod(box[2:] - box[:2]) + areas - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def _kept(boxes: Array, scores: Array, most: int, iou: float) -> list[int]:
    order = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while order and len(kept) < most:
        best = order.pop(0)
        kept.append(int(best))
        overlap = _overlaps(boxes[best], boxes[order])
        order = [index for index, shared in zip(order, overlap, strict=True) if shared <= iou]
    return kept


def _one(array: Array | None, default: float) -> float:
    return default if array is None or not array.size else float(np.ravel(array)[0])


def _non_max_suppression(
    boxes: Array,
    scores: Array,
    most: Array | None = None,
    iou: Array | None = None,
    threshold: Array | None = None,
    *,
    center_point_box: int,
) -> Array:
    limit, overlap, floor = int(_one(most, 0)), _one(iou, 0.0), _one(threshold, -np.inf)
    rows: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]):
        corners = _corners(boxes[batch], center_point_box)
        for label in range(scores.shape[1]):
            marks = scores[batch, label]
            chosen = np.flatnonzero(marks > floor)
            kept = _kept(corners[chosen], marks[chosen], limit, overlap)
            rows += [(batch, label, int(chosen[index])) for index in kept]
    return np.array(rows, np.int64).reshape(-1, 3)


ROWS = (
    op(
        "TopK",
        "X K:i64",
        "Values Indices:i64",
        _top_k_shape,
        _top_k,
        allow="number",
        attrs={"axis": -1, "largest": 1, "sorted": 1},
    ),
    op("NonZero", "X", "Y:i64", _non_zero_shape, _non_zero),
    op(
        "OneHot",
        "indices:I depth:D values:V",
        "output:V",
        _one_hot_shape,
        _one_hot,
        attrs={"axis": -1},
    ),
    op(
        "Compress",
        "input condition:bool",
        "output",
        _compress_shape,
        _compress,
        attrs={"axis": None},
    ),
    op(
        "CumSum",
        "x axis:I",
        "y",
        same,
        _cumulative(np.cumsum, 0),
        attrs={"exclusive": 0, "reverse": 0},
        allow={"T": "number", "I": "index"},
    ),
    op(
        "CumProd",
        "x axis:I",
        "y",
        same,
        _cumulative(np.cumprod, 1),
        attrs={"exclusive": 0, "reverse": 0},
        allow={"T": "number", "I": "index"},
    ),
    op(
        "Unique",
        "X",
        "Y indices:i64 inverse_indices:i64 counts:i64",
        _unique_shape,
        _unique,
        attrs={"axis": None, "sorted": 1},
    ),
    op(
        "NonMaxSuppression",
        "boxes scores max_output_boxes_per_class?:i64 iou_threshold?:f32 score_threshold?:f32",
        "selected_indices:i64",
        lambda site: [(site.fresh(0), 3)],
        _non_max_suppression,
        attrs={"center_point_box": 0},
    ),
)

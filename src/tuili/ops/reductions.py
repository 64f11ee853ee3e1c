"""Reductions over axes: sums, products, extremes, norms, and the place of the extreme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from tuili.ops.op import Op, Result, op
from tuili.ops.rationals import Quotient
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType, dim_max, dim_min


def _reduced(shape: Sequence[Dim], axes: Sequence[int], keepdims: int) -> list[Dim]:
    if keepdims:
        return [1 if axis in axes else dim for axis, dim in enumerate(shape)]
    return [dim for axis, dim in enumerate(shape) if axis not in axes]


def _reduce_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    keep = site.attr("keepdims")
    axes = site.ints(1)
    if site.has(1) and axes is None:
        length = site.shape(1)[0]
        if length != 0:
            return [site.open(len(shape)) if keep else _dropped(site, len(shape), length)]
    if not axes:
        if site.attr("noop_with_empty_axes"):
            return [shape]
        axes = tuple(range(len(shape)))
    return [_reduced(shape, site.axes(axes, len(shape)), keep)]


def _dropped(site: Site, rank: int, count: Dim) -> Result:
    return site.open(rank - count) if isinstance(count, int) else None


def _chosen(data: Array, axes: Array | None, noop: int) -> tuple[int, ...] | None:
    if axes is not None and axes.size:
        return tuple(int(axis) for axis in axes.ravel())
    return None if noop else tuple(range(data.ndim))


def _wide(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _reduction(function: Any, before: Any = None, after: Any = None) -> Any:
    """A meaning from a NumPy reduction and elementwise functions around it."""

    def meaning(
        data: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Array:
        chosen = _chosen(data, axes, noop_with_empty_axes)
        wide = _wide(data)
        wide = wide if before is None else before(wide)
        if chosen is not None:
            wide = function(wide, axis=chosen, keepdims=bool(keepdims))
        result = wide if after is None else after(wide)
        return np.asarray(result).astype(data.dtype)

    return meaning


def _sum(x: Array, axis: Any, keepdims: bool) -> Array:
    return np.sum(x, axis, keepdims=keepdims, dtype=x.dtype)


def _mean(x: Array, axis: Any, keepdims: bool) -> Array:
    if x.dtype.kind in "iu":
        mean = np.mean(x, axis, keepdims=keepdims, dtype=np.float64)
        return np.trunc(np.nan_to_num(mean))  # of nothing: 0, as integers have no NaN
    return np.mean(x, axis, keepdims=keepdims)


def _extreme(function: Any, sign: int) -> Any:
    def reduction(x: Array, axis: Any, keepdims: bool) -> Array:
        return function(x, axis=axis, keepdims=keepdims, initial=_worst(x.dtype, sign))

    return reduction


def _worst(dtype: Any, sign: int) -> Any:
    if dtype.kind == "b":
        return sign < 0
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return limits.min if sign > 0 else limits.max
    return dtype.type(-np.inf if sign > 0 else np.inf)


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    finite = np.where(np.isfinite(top), top, 0)
    total = np.log(np.sum(np.exp(x - finite), axis=axis, keepdims=True)) + finite
    return total if keepdims else np.squeeze(total, axis)


def _symbolic(function: Any) -> Any:
    """Reductions of vectors of dims to one dim."""

    def symbolic(inputs: Sequence[Any], attrs: Mapping[str, Any], dtype: DType) -> Array | None:
        data = np.asarray(inputs[0], object)
        if data.ndim > 1 or data.size == 0 or (attrs["noop_with_empty_axes"] and len(inputs) < 2):
            return None
        if any(isinstance(item, Quotient) for item in data.ravel()):
            return None
        result = np.empty((), object)
        result[()] = reduce(function, data.ravel().tolist())
        return result.reshape((1,) * data.ndim if attrs["keepdims"] else ())

    return symbolic


def _row(name: str, meaning: Any, allow: str = "number", symbolic: Any = None) -> Op:
    return op(
        name,
        "data axes?:i64",
        "reduced",
        _reduce_shape,
        meaning,
        allow=allow,
        attrs={"keepdims": 1, "noop_with_empty_axes": 0},
        symbolic=None if symbolic is None else _symbolic(symbolic),
    )


# -- the place of the extreme --------------------------------------------------------------


def _arg_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.axis(site.attr("axis"), len(shape))
    return [_reduced(shape, (axis,), site.attr("keepdims"))]


def _arg(function: Any) -> Any:
    def meaning(data: Array, axis: int, keepdims: int, select_last_index: int) -> Array:
        if select_last_index:
            flipped = function(np.flip(data, axis), axis)
            found = data.shape[axis] - 1 - flipped
        else:
            found = function(data, axis)
        return (np.expand_dims(found, axis) if keepdims else np.asarray(found)).astype(np.int64)

    return meaning


def _arg_row(name: str, function: Any) -> Op:
    return op(
        name,
        "data",
        "reduced:i64",
        _arg_shape,
        _arg(function),
        allow="number",
        attrs={"axis": 0, "keepdims": 1, "select_last_index": 0},
    )


ROWS = (
    _row("ReduceSum", _reduction(_sum), symbolic=lambda a, b: a + b),
    _row("ReduceProd", _reduction(np.prod), symbolic=lambda a, b: a * b),
    _row("ReduceMean", _reduction(_mean)),
    _row("ReduceMax", _reduction(_extreme(np.max, 1)), "any", dim_max),
    _row("ReduceMin", _reduction(_extreme(np.min, -1)), "any", dim_min),
    _row("ReduceL1", _reduction(_sum, before=np.abs)),
    _row("ReduceL2", _reduction(_sum, before=np.square, after=np.sqrt)),
    _row("ReduceSumSquare", _reduction(_sum, before=np.square)),
    _row("ReduceLogSum", _reduction(_sum, after=np.log)),
    _row("ReduceLogSumExp", _reduction(_log_sum_exp)),
    _arg_row("ArgMax", np.argmax),
    _arg_row("ArgMin", np.argmin),
)

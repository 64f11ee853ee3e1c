"""Operators that make tensors: shapes, ranges, fills and random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops import rationals
from tuili.ops.bounds import at_least
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, DType, Shape, numel


def _shape_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    part = shape[site.attr("start") : site.attr("end")]
    site.know(part)
    return [(len(part),)]


def _size_shape(site: Site) -> list[Result]:
    total = np.empty((), object)
    total[()] = numel(site.shape(0))
    site.know(total)
    return [()]


def _fill(shape: Array, value: Array) -> Array:
    return np.full(tuple(shape.tolist()), np.ravel(value)[0], value.dtype)


def _fill_rule(site: Site) -> list[Result]:
    """The element type is the one of the `value` attribute."""
    value: Array = site.attr("value")
    if site.tensor(0).shape is None:
        return [TensorType(DType.of(value.dtype), None)]
    sizes, length = site.dims(0), site.need_rank(0, 1)[0]
    shape: Shape | None = None
    if sizes is not None:
        shape = tuple(at_least(size, 0) for size in sizes)
        for size in sizes:
            site.not_negative(size, "a size to fill")
    elif isinstance(length, int):
        shape = tuple(site.open(length))
    return [TensorType(DType.of(value.dtype), shape)]


def _range_shape(site: Site) -> list[Result]:
    arrays = [site.array(index) for index in range(3)]
    if all(array is not None for array in arrays):
        start, limit, delta = (np.asarray(array).ravel()[0] for array in arrays)
        return [(_range_length(start, limit, delta),)]
    start, limit, delta = (site.contents.bind(site.value(index)) for index in range(3))
    if start is None or limit is None or delta is None:
        return [(site.fresh(0),)]
    step = delta[0]
    if not isinstance(step, int) or step == 0:
        return [(site.fresh(0),)]
    ends = (limit[0], start[0]) if step > 0 else (start[0], limit[0])
    span = rationals.subtract(*ends)  # floats such as Range(0.5, H, 1) may leave a rest
    count = None if span is None else rationals.divide(span, abs(step))
    if count is None:
        return [(site.fresh(0),)]
    length = at_least(rationals.ceil(count), 0)
    whole = not isinstance(start[0], rationals.Quotient)
    if whole and isinstance(length, int) and length <= 512:
        site.know([start[0] + step * index for index in range(length)])
    return [(length,)]


def _range_length(start: Any, limit: Any, delta: Any) -> int:
    span = float(limit) - float(start)
    if isinstance(start, np.integer):
        return max(-((int(start) - int(limit)) // int(delta)), 0)
    return max(int(np.ceil(span / float(delta))), 0)


def range_of(start: Array, limit: Array, delta: Array) -> Array:
    """The numbers from `start` on, `delta` apart, before `limit`."""
    first, last, step = (np.asarray(item).ravel()[0] for item in (start, limit, delta))
    count = np.arange(_range_length(first, last, step))
    kind = start.dtype
    if kind.name in ("float16", "bfloat16"):
        return (float(first) + count * float(step)).astype(kind)
    return first + count.astype(kind) * step


def _eye(data: Array, dtype: DType | None, k: int) -> Array:
    kind = data.dtype if dtype is None else dtype.numpy
    return np.eye(*data.shape, k=k).astype(kind)


def _typed_shape(shape: Any) -> Any:
    """The element type is an attribute, or the input's when it is left out."""

    def rule(site: Site) -> list[Result]:
        dtype = site.attr("dtype")
        known = site.tensor(0).shape is not None
        found = tuple(shape(site)) if known else None
        return [TensorType(site.dtype(0) if dtype is None else dtype, found)]

    return rule


# -- random --------------------------------------------------------------------------------


def _generator(seed: float | None) -> np.random.Generator:
    return np.random.default_rng(None if seed is None else int(np.float32(seed).view(np.uint32)))


def _normal(shape: Any, seed: float | None, mean: float, scale: float) -> Array:
    return _generator(seed).normal(mean, scale, shape)


def _uniform(shape: Any, seed: float | None, low: float, high: float) -> Array:
    return _generator(seed).uniform(low, high, shape)


def _as(array: Array, dtype: DType | None, like: Array | None = None) -> Array:
    if dtype is not None:
        return array.astype(dtype.numpy)
    return array.astype(np.float32 if like is None else like.dtype)


def _bernoulli(data: Array, dtype: DType | None, seed: float | None) -> Array:
    return _as(_generator(seed).random(data.shape) < data, dtype, data)


def _multinomial(data: Array, dtype: DType, sample_size: int, seed: float | None) -> Array:
    odds = np.exp(data - data.max(-1, keepdims=True)).cumsum(-1)
    draws = _generator(seed).random((data.shape[0], sample_size)) * odds[:, -1:]
    return (draws[:, :, None] >= odds[:, None, :]).sum(-1).astype(dtype.numpy)


def _multinomial_shape(site: Site) -> list[Result]:
    return [(site.shape(0)[0], site.attr("sample_size"))]


def _random(name: str, meaning: Any, **attrs: Any) -> Op:
    return op(
        name,
        "",
        "output:@dtype",
        lambda site: [site.attr("shape")],
        meaning,
        random=True,
        attrs={"dtype": DType.F32, "seed": None, "shape": REQUIRED, **attrs},
    )


def _random_like(name: str, meaning: Any, **attrs: Any) -> Op:
    return op(
        name,
        "input",
        "output:any",
        _typed_shape(lambda site: site.shape(0)),
        meaning,
        random=True,
        attrs={"dtype": None, "seed": None, **attrs},
    )


ROWS = (
    op(
        "Shape",
        "data",
        "shape:i64",
        _shape_shape,
        attrs={"start": 0, "end": None},
        meaning=lambda data, start, end: np.array(data.shape[start:end], np.int64),
    ),
    op("Size", "data", "size:i64", _size_shape, lambda data: np.array(data.size, np.int64)),
    op(
        "ConstantOfShape",
        "shape:i64",
        "output:any",
        _fill_rule,
        _fill,
        attrs={"value": np.zeros(1, np.float32)},
    ),
    op("Range", "start limit delta", "output", _range_shape, range_of, allow="number"),
    op(
        "EyeLike",
        "input",
        "output:any",
        _typed_shape(lambda site: site.need_rank(0, 2)),
        _eye,
        attrs={"dtype": None, "k": 0},
    ),
    _random(
        "RandomNormal",
        mean=0.0,
        scale=1.0,
        meaning=lambda shape, dtype, seed, mean, scale: _as(
            _normal(shape, seed, mean, scale), dtype
        ),
    ),
    _random(
        "RandomUniform",
        low=0.0,
        high=1.0,
        meaning=lambda shape, dtype, seed, low, high: _as(_uniform(shape, seed, low, high), dtype),
    ),
    _random_like(
        "RandomNormalLike",
        mean=0.0,
        scale=1.0,
        meaning=lambda x, dtype, seed, mean, scale: _as(
            _normal(x.shape, seed, mean, scale), dtype, x
        ),
    ),
    _random_like(
        "RandomUniformLike",
        low=0.0,
        high=1.0,
        meaning=lambda x, dtype, seed, low, high: _as(_uniform(x.shape, seed, low, high), dtype, x),
    ),
    _random_like("Bernoulli", _bernoulli),
    op(
        "Multinomial",
        "input",
        "output:@dtype",
        _multinomial_shape,
        _multinomial,
        random=True,
        attrs={"dtype": DType.I32, "sample_size": 1, "seed": None},
    ),
)

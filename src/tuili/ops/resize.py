"""Resize: nearest, linear and cubic interpolation along any axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import Any

import numpy as np

from tuili.ops.op import Result, op
from tuili.ops.rationals import floor, is_symbolic, multiply
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, floor_div

_ATTRS: dict[str, Any] = {
    "antialias": 0,
    "axes": None,
    "coordinate_transformation_mode": "half_pixel",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
    "keep_aspect_ratio_policy": "stretch",
    "mode": "nearest",
    "nearest_mode": "round_prefer_floor",
}


_LARGEST = 2**24  # no picture grows more
_LARGEST_DIVISOR = 2**11  # pictures of more rows are hardly scaled by their size


def _resize_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axes = site.attr("axes")
    chosen = site.axes(range(len(shape)) if axes is None else axes, len(shape))
    if site.has(3) and site.shape(3) != (0,):
        if site.has(2) and site.shape(2) != (0,):
            site.fail("both scales and sizes are given; leave one of them out")
        return [_sized(site, shape, chosen)]
    if not site.has(2):
        site.fail("neither scales nor sizes are given; one of them is required")
    scales = site.array(2)
    known = site.known(2)
    values = known if scales is None and known is not None else scales
    if values is None:
        for axis in chosen:
            shape[axis] = site.fresh(axis)
        return [shape]
    if values.size != len(chosen):
        site.fail(f"{values.size} scales are given for {len(chosen)} axes; expected one per axis")
    for axis, scale in zip(chosen, values.ravel(), strict=True):
        if not is_symbolic(scale) and not 0 < float(scale) < inf:
            site.fail(f"the scale of axis {axis} is {float(scale)}; expected a number above 0")
        shape[axis] = _scaled(shape[axis], scale)
    return [shape]


def _scaled(dim: Dim, scale: Any) -> Dim:
    if is_symbolic(scale):
        product = multiply(dim, scale)
        return dim if product is None else floor(product)
    if isinstance(dim, int):
        return _length(dim, float(scale))
    ratio = _ratio(float(scale))
    return floor_div(dim * ratio.numerator, ratio.denominator)


def _length(size: int, scale: float) -> int:
    """The product in f32, rounded down: 9 becomes 13 by 13 / 9, which f32 has a little too small.

    onnxruntime and ONNX's own shapes do so; tf2onnx writes sizes as such scales.
    """
    return int(np.floor(np.float32(size) * np.float32(scale)))


def _ratio(scale: float) -> Fraction:
    """The fraction that an f32 was rounded from, so that open sizes come out as known ones do."""
    likely = Fraction(scale).limit_denominator(_LARGEST_DIVISOR)
    return likely if np.float32(float(likely)) == np.float32(scale) else Fraction(scale)


def _sized(site: Site, shape: list[Dim], axes: Sequence[int]) -> list[Dim]:
    sizes = site.dims(3)
    policy = site.attr("keep_aspect_ratio_policy")
    if sizes is not None and len(sizes) != len(axes):
        site.fail(f"{len(sizes)} sizes are given for {len(axes)} axes; one per axis is expected")
    if policy != "stretch" and sizes is not None:
        fixed = [dim for dim in (*sizes, *(shape[axis] for axis in axes)) if isinstance(dim, int)]
        if len(fixed) == 2 * len(axes):
            _, kept = _kept_aspect(fixed[len(axes) :], fixed[: len(axes)], policy)
            sizes = tuple(kept)
        else:
            sizes = None
    for index, axis in enumerate(axes):
        shape[axis] = site.fresh(axis) if sizes is None else sizes[index]
        site.not_negative(shape[axis], f"the size of axis {axis}")
    return shape


def _kept_aspect(old: Sequence[int], new: Sequence[int], policy: str) -> tuple[float, list[int]]:
    ratios = [size / before for size, before in zip(new, old, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return scale, [int(np.floor(scale * before + 0.5)) for before in old]


# -- one axis ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis is resized."""

    size: int
    result: int
    scale: float
    start: float
    end: float


def _coordinates(axis: _Axis, mode: str, real: type[np.floating[Any]]) -> Array:
    """The place before resizing of each place after it, computed in `real`."""
    x, scale, size = np.arange(axis.result, dtype=real), real(axis.scale), real(axis.size)
    start, end = real(axis.start), real(axis.end)
    match mode:
        case "asymmetric":
            return x / scale
        case "align_corners":
            last = scale * size - 1  # the exact length, before it is rounded down
            return x * (size - 1) / last if axis.result > 1 else x * 0
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if axis.result > 1 else x * 0
        case "tf_half_pixel_for_nn":  # Resize-11 only
            return (x + 0.5) / scale
        case "half_pixel_symmetric":
            adjustment = axis.result / (scale * size)
            return size / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        case "tf_crop_and_resize":
            span = (end - start) * (size - 1)
            if axis.result > 1:
                return start * (size - 1) + x * span / (axis.result - 1)
            return x + 0.5 * (start + end) * (size - 1)
        case _:
            return (x + 0.5) / scale - 0.5


def _places(axis: _Axis, attrs: dict[str, Any]) -> Array:
    """The nearest are told in f32, as in onnxruntime: ten pixels times 1.7 meet whole places so."""
    real = np.float32 if attrs["mode"] == "nearest" else np.float64
    return _coordinates(axis, attrs["coordinate_transformation_mode"], real).astype(np.float64)


_ROUND = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _linear_kernel(distance: Array, _: float) -> Array:
    return np.clip(1 - np.abs(distance), 0, None)


def _cubic_kernel(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _taps(axis: _Axis, places: Array, attrs: dict[str, Any]) -> tuple[Array, Array]:
    """The indices [out, taps] and weights [out, taps] along one axis."""
    if attrs["mode"] == "nearest":
        nearest = _ROUND[attrs["nearest_mode"]](places)
        return nearest[:, None].astype(np.int64), np.ones((len(places), 1))
    cubic = attrs["mode"] == "cubic"
    kernel, reach = (_cubic_kernel, 2) if cubic else (_linear_kernel, 1)
    shrink = min(axis.scale, 1.0) if attrs["antialias"] else 1.0
    half = 1 - (int(np.floor(-reach / shrink)) + 1) if shrink < 1 else reach
    offsets = np.arange(1 - half, half + 1)
    indices = (np.ceil(places) - 1).astype(np.int64)[:, None] + offsets
    weights = kernel((indices - places[:, None]) * shrink, attrs["cubic_coeff_a"])
    if attrs["exclude_outside"]:
        weights = np.where((indices >= 0) & (indices < axis.size), weights, 0)
    if attrs["antialias"] or attrs["exclude_outside"]:
        weights = weights / weights.sum(1, keepdims=True)
    return indices, weights


def resize_axis(
    size: int, result: int, scale: float, crop: tuple[float, float], attrs: dict[str, Any]
) -> tuple[Array, Array]:
    """Source indices and weights [result, taps] along one axis; -1 stands for outside the crop."""
    axis = _Axis(size, result, scale, *crop)
    places = _places(axis, attrs)
    indices, weights = _taps(axis, places, attrs)
    inside = np.clip(indices, 0, size - 1)
    if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
        inside[(places < 0) | (places > size - 1)] = -1
    return inside, weights


def _resized(x: Array, position: int, axis: _Axis, attrs: dict[str, Any]) -> Array:
    places = _places(axis, attrs)
    indices, weights = _taps(axis, places, attrs)
    inside = np.clip(indices, 0, axis.size - 1)
    column = [1] * x.ndim
    column[position] = -1
    total: Any = 0
    for tap in range(inside.shape[1]):
        part = np.take(x, inside[:, tap], position)
        exact = attrs["mode"] == "nearest"
        total = part if exact else total + part * weights[:, tap].reshape(column).astype(x.dtype)
    if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
        outside = ((places < 0) | (places > axis.size - 1)).reshape(column)
        total = np.where(outside, x.dtype.type(attrs["extrapolation_value"]), total)
    return total


def _plan(
    shape: Sequence[int],
    roi: Array | None,
    scales: Array | None,
    sizes: Array | None,
    attrs: dict[str, Any],
) -> list[tuple[int, _Axis]]:
    rank = len(shape)
    axes = attrs["axes"]
    chosen = range(rank) if axes is None else [axis % rank for axis in axes]
    old = [shape[axis] for axis in chosen]
    if sizes is not None and sizes.size:
        new = [int(size) for size in sizes]
        factors = [size / before if before else 1.0 for size, before in zip(new, old, strict=True)]
        if attrs["keep_aspect_ratio_policy"] != "stretch":
            scale, new = _kept_aspect(old, new, attrs["keep_aspect_ratio_policy"])
            factors = [scale] * len(old)
    else:
        assert scales is not None
        factors = [float(scale) for scale in scales]
        if not all(0 < factor < _LARGEST for factor in factors):
            raise ValueError(f"scales {factors}; every scale must be above 0 and below {_LARGEST}")
        new = [_length(size, factor) for size, factor in zip(old, factors, strict=True)]
    corners = np.zeros(2 * len(old)) if roi is None or not roi.size else roi.astype(np.float64)
    return [
        (axis, _Axis(old[i], new[i], factors[i], corners[i], corners[i + len(old)]))
        for i, axis in enumerate(chosen)
    ]


def resize(
    X: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    **attrs: Any,
) -> Array:
    """Interpolation axis by axis (Resize-19)."""
    result = X
    if attrs["mode"] != "nearest" and X.dtype.name not in ("float64", "float32"):
        result = X.astype(np.float32)
    cropped = attrs["coordinate_transformation_mode"] == "tf_crop_and_resize"
    for position, axis in _plan(X.shape, roi, scales, sizes, attrs):
        if axis.size != axis.result or axis.scale != 1 or cropped:
            result = _resized(result, position, axis, attrs)
    if X.dtype.kind in "iu" and result.dtype.kind == "f":
        limits = np.iinfo(X.dtype)
        return np.clip(np.rint(result), limits.min, limits.max).astype(X.dtype)
    return result


ROWS = (
    op(
        "Resize",
        "X roi?:R scales?:f32 sizes?:i64",
        "Y",
        _resize_shape,
        resize,
        attrs=_ATTRS,
    ),
)

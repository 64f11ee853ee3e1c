"""Pools: MaxPool, AveragePool, LpPool, their global forms, MaxUnpool, MaxRoiPool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.ops.windows import defaults, padded, resolve_pads, view_windows, window_shape
from tuili.tensors import Array, shape_text

POOL_ATTRS: dict[str, Any] = {
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "dilations": None,
    "kernel_shape": REQUIRED,
    "pads": None,
    "strides": None,
}


def pool_shape(site: Site) -> list[Result]:
    """[N, C, *out] for a kernel_shape."""
    x = site.shape(0)
    kernel = site.attr("kernel_shape")
    if len(x) != len(kernel) + 2:
        site.fail(
            f"kernel_shape {list(kernel)} does not fit input {shape_text(x)};"
            f" expected {len(x) - 2} entries"
        )
    return [(*x[:2], *window_shape(site, x[2:], kernel))] * site.num_outputs


def _windows(x: Array, fill: Any, attrs: dict[str, Any]) -> tuple[Array, tuple[int, ...]]:
    """All windows of the input padded with `fill`, and the real pads."""
    kernel = attrs["kernel_shape"]
    strides, dilations, pads = resolve_pads(x.shape[2:], kernel, attrs)
    rank = len(kernel)
    extra = [0] * rank
    if attrs.get("ceil_mode") and attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        for a, size in enumerate(x.shape[2:]):
            reach = dilations[a] * (kernel[a] - 1) + 1
            room = size + pads[a] + pads[a + rank] - reach
            count = min(-(-room // strides[a]) + 1, -(-(size + pads[a]) // strides[a]))
            extra[a] = max((count - 1) * strides[a] + reach - room - reach, 0)
    ends = [pads[a + rank] + extra[a] for a in range(rank)]
    filled = padded(x, (*pads[:rank], *ends), fill)
    return view_windows(filled, kernel, strides, dilations), pads


def _lowest(dtype: Any) -> Any:
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return -np.inf


def max_pool(X: Array, *, storage_order: int, count: int, **attrs: Any) -> Any:
    """The largest element of every window, and where it is (MaxPool-22)."""
    rank = X.ndim - 2
    windows, _ = _windows(X, _lowest(X.dtype), attrs)
    flat = windows.reshape(*windows.shape[: 2 + rank], int(np.prod(windows.shape[2 + rank :])))
    if count < 2:
        return flat.max(-1)
    places = np.arange(X.size, dtype=np.int64).reshape(X.shape)
    if storage_order:
        plane = np.arange(int(np.prod(X.shape[2:])), dtype=np.int64)
        column_major = plane.reshape(X.shape[2:][::-1]).transpose()
        starts = np.arange(X.shape[0] * X.shape[1]).reshape(*X.shape[:2], *[1] * rank)
        places = starts * plane.size + column_major
    indices, _ = _windows(places, -1, attrs)
    best = flat.argmax(-1)[..., None]
    picked = np.take_along_axis(indices.reshape(flat.shape), best, -1)
    return np.take_along_axis(flat, best, -1)[..., 0], picked[..., 0]


def average_pool(X: Array, *, count_include_pad: int, **attrs: Any) -> Array:
    """The mean of every window (AveragePool-22)."""
    wide = X.astype(np.float32) if X.dtype.itemsize < 4 else X
    windows, pads = _windows(wide, 0, attrs)
    ones = np.ones((1, 1, *X.shape[2:]), wide.dtype)
    settled = attrs
    if count_include_pad:
        ones = padded(ones, pads, 1)
        settled = {**attrs, "pads": (0,) * len(pads), "auto_pad": "NOTSET"}
    counts, _ = _windows(ones, 0, settled)
    axes = tuple(range(X.ndim, windows.ndim))
    sizes = counts.sum(axes)
    cut = tuple(slice(size) for size in windows.shape[2 : X.ndim])
    return windows.sum(axes) / sizes[(..., *cut)]


def _lp_pool(X: Array, *, p: int, **attrs: Any) -> Array:
    windows, _ = _windows(np.abs(X) ** p, 0, attrs)
    return windows.sum(tuple(range(X.ndim, windows.ndim))) ** (1 / p)


def _global_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    return [(*shape[:2], *[1] * (len(shape) - 2))]


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _global_lp(X: Array, p: int) -> Array:
    return (np.abs(X) ** p).sum(_spatial(X), keepdims=True) ** (1 / p)


def _unpool_shape(site: Site) -> list[Result]:
    x = site.shape(0)
    if site.has(2):
        sizes = site.dims(2)
        return [site.open(len(x)) if sizes is None else sizes]
    rank = len(x) - 2
    strides = defaults(site.attr("strides"), rank, 1)
    pads = defaults(site.attr("pads"), 2 * rank, 0)
    kernel = site.attr("kernel_shape")
    spatial = [
        (x[2 + a] - 1) * strides[a] + kernel[a] - pads[a] - pads[a + rank] for a in range(rank)
    ]
    for size in spatial:
        site.not_negative(size, "what unpooling gives less its pads")
    return [(*x[:2], *spatial)]


def _max_unpool(
    X: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Array:
    rank = X.ndim - 2
    step = defaults(strides, rank, 1)
    border = defaults(pads, 2 * rank, 0)
    small = [
        (X.shape[2 + a] - 1) * step[a] + kernel_shape[a] - border[a] - border[a + rank]
        for a in range(rank)
    ]
    inferred = (*X.shape[:2], *small)
    result = np.zeros(int(np.prod(inferred)), X.dtype)
    result[indices.ravel()] = X.ravel()
    plane = result.reshape(inferred)
    if output_shape is None:
        return plane
    # The indices count in the inferred shape; a larger output is filled up at the ends.
    final = np.zeros(tuple(output_shape.tolist()), X.dtype)
    final[tuple(slice(size) for size in inferred)] = plane
    return final


def _roi_shape(site: Site) -> list[Result]:
    return [(site.shape(1)[0], site.shape(0)[1], *site.attr("pooled_shape"))]


def _max_roi_pool(
    X: Array, rois: Array, pooled_shape: tuple[int, int], spatial_scale: float
) -> Array:
    height, width = X.shape[2:]
    result = np.zeros((len(rois), X.shape[1], *pooled_shape), X.dtype)
    for index, roi in enumerate(rois):
        x1, y1, x2, y2 = np.floor(roi[1:] * spatial_scale + 0.5).astype(int)
        size = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(*pooled_shape):
            rows = _bin(i, size[0] / pooled_shape[0], y1, height)
            columns = _bin(j, size[1] / pooled_shape[1], x1, width)
            patch = X[int(roi[0]), :, rows, columns]
            if patch.size:
                result[index, :, i, j] = patch.max((1, 2))
    return result


def _bin(index: int, size: float, start: int, limit: int) -> slice:
    first = int(np.clip(np.floor(index * size) + start, 0, limit))
    last = int(np.clip(np.ceil((index + 1) * size) + start, 0, limit))
    return slice(first, last)


def _global(name: str, meaning: Any, **attrs: Any) -> Op:
    return op(name, "X", "Y", _global_shape, meaning, allow="float", attrs=attrs)


ROWS = (
    op(
        "MaxPool",
        "X",
        "Y Indices:i64",
        pool_shape,
        max_pool,
        counts_outputs=True,
        attrs={**POOL_ATTRS, "storage_order": 0},
    ),
    op(
        "AveragePool",
        "X",
        "Y",
        pool_shape,
        average_pool,
        allow="float",
        attrs={**POOL_ATTRS, "count_include_pad": 0},
    ),
    op("LpPool", "X", "Y", pool_shape, _lp_pool, allow="float", attrs={**POOL_ATTRS, "p": 2}),
    _global("GlobalMaxPool", lambda x: x.max(_spatial(x), keepdims=True)),
    _global("GlobalAveragePool", lambda x: x.mean(_spatial(x), keepdims=True)),
    _global("GlobalLpPool", _global_lp, p=2),
    op(
        "MaxUnpool",
        "X I:i64 output_shape?:i64",
        "output",
        _unpool_shape,
        _max_unpool,
        allow="float",
        attrs={"kernel_shape": REQUIRED, "pads": None, "strides": None},
    ),
    op(
        "MaxRoiPool",
        "X rois",
        "Y",
        _roi_shape,
        _max_roi_pool,
        allow="float",
        attrs={"pooled_shape": REQUIRED, "spatial_scale": 1.0},
    ),
)

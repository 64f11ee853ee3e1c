"""com.microsoft: older names of standard operators, and single operators of some model families."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tuili.ops import creation, gathers, slicing, vision
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, floor_div

# -- the standard's operators under their first name ---------------------------------------


def _alias(family: Any, name: str) -> Op:
    (row,) = (row for row in family.ROWS if row.name == name)
    return replace(row, name=f"com.microsoft::{name}")


def _range_shape(site: Site) -> list[Result]:
    return [(site.fresh(0),)]


def _range(start: Array, limit: Array, delta: Array | None) -> Array:
    """Its step may be left out."""
    return creation.range_of(start, limit, np.ones_like(start) if delta is None else delta)


# -- language models -----------------------------------------------------------------------


def _block_repeats(input_ids: Array, scores: Array, ngram_size: int) -> Array:
    """Scores in which every token that would repeat an n-gram is impossible."""
    result = scores.copy()
    length = input_ids.shape[1]
    for row, ids in zip(result, input_ids, strict=True):
        tail = ids[length - ngram_size + 1 :] if ngram_size > 1 else ids[:0]
        for first in range(length - ngram_size + 1):
            if np.array_equal(ids[first : first + ngram_size - 1], tail):
                row[ids[first + ngram_size - 1]] = -np.inf
    return result


def _warping_shape(site: Site) -> list[Result]:
    return [(2, site.fresh(1))]


def _warping(cost: Array) -> Array:
    """The cheapest way from the first corner to the last, in steps to the right, down, or both."""
    cost = cost.reshape(cost.shape[-2:])
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    total[0, 0] = 0
    came = np.zeros((rows, columns), np.int64)
    for i, j in np.ndindex(rows, columns):
        before = (total[i, j], total[i, j + 1], total[i + 1, j])
        came[i, j] = _cheapest(before)
        total[i + 1, j + 1] = cost[i, j] + before[came[i, j]]
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        if i == 0 or j == 0:
            path.append((max(i - 1, 0), max(j - 1, 0)))
        else:
            path.append((i - (came[i, j] < 2), j - (came[i, j] != 1)))
    return np.array(path[::-1], np.int32).T


def _cheapest(before: tuple[Any, Any, Any]) -> int:
    """0: both, 1: down, 2: to the right; of equal ones the last."""
    both, down, right = before
    if both < down and both < right:
        return 0
    return 1 if down < both and down < right else 2


def _first_unique(x: Array) -> tuple[Array, Array, Array]:
    """Each element once, in the order of their first appearance."""
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    rank = np.argsort(order)
    return values[order], rank[inverse.reshape(-1)], counts[order]


def _unique_shape(site: Site) -> list[Result]:
    count = site.fresh(0)
    return [(count,), site.shape(0), (count,)]


def _all_finite(*tensors: Array, isinf_only: int, isnan_only: int) -> Array:
    if isinf_only:
        found = any(np.isinf(x).any() for x in tensors)
    elif isnan_only:
        found = any(np.isnan(x).any() for x in tensors)
    else:
        found = any(not np.isfinite(x).all() for x in tensors)
    return np.array(not found)


def _bias_dropout(
    data: Array, bias: Array, residual: Array | None = None, ratio: Array | None = None,
    training: Array | None = None, *, seed: int | None,
) -> tuple[Array, Array]:  # fmt: skip
    """Without training nothing is dropped."""
    if training is not None and bool(training):
        raise ValueError("training_mode is true; export the model for inference")
    total = data + bias
    return total if residual is None else total + residual, np.ones(data.shape, bool)


# -- pictures and signals ------------------------------------------------------------------


def _crop_shape(site: Site) -> list[Result]:
    size = site.dims(3) or tuple(site.open(2))
    return [(site.shape(1)[0], site.shape(0)[1], *size)]


def _places(low: float, high: float, size: int, count: int) -> Array:
    """Where `count` samples of a span lie along an axis of `size` elements."""
    if count > 1:
        return low * (size - 1) + np.arange(count) * (high - low) * (size - 1) / (count - 1)
    return np.array([0.5 * (low + high) * (size - 1)])


def _crop_and_resize(
    X: Array, rois: Array, rows: Array, size: Array, *, extrapolation_value: float, mode: str
) -> Array:
    height, width = X.shape[2:]
    results: list[Array] = []
    for (y1, x1, y2, x2), row in zip(rois.astype(float), rows, strict=True):
        y = _places(y1, y2, height, int(size[0]))
        x = _places(x1, x2, width, int(size[1]))
        inside = ((y >= 0) & (y <= height - 1))[:, None] & ((x >= 0) & (x <= width - 1))
        picture = X[row]
        if mode == "bilinear":
            crop = _bilinear(picture, y, x)
        else:
            crop = picture[:, _within(np.round(y), height)[:, None], _within(np.round(x), width)]
        results.append(np.where(inside, crop, X.dtype.type(extrapolation_value)))
    return np.array(results, X.dtype).reshape(len(rois), X.shape[1], *map(int, size))


def _within(places: Array, size: int) -> Array:
    return np.clip(places, 0, size - 1).astype(np.int64)


def _bilinear(picture: Array, y: Array, x: Array) -> Array:
    top, left = _within(np.floor(y), picture.shape[1]), _within(np.floor(x), picture.shape[2])
    bottom, right = _within(np.ceil(y), picture.shape[1]), _within(np.ceil(x), picture.shape[2])
    dy, dx = (y - top)[:, None], x - left
    above = picture[:, top[:, None], left] * (1 - dx) + picture[:, top[:, None], right] * dx
    below = picture[:, bottom[:, None], left] * (1 - dx) + picture[:, bottom[:, None], right] * dx
    return above * (1 - dy) + below * dy


def _rfft_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    return [(*shape[:-1], floor_div(shape[-1], 2) + 1, 2)]


def _rfft(X: Array, **attrs: Any) -> Array:
    _one_sided(attrs)
    axes = range(X.ndim - attrs["signal_ndim"], X.ndim)
    y = np.fft.rfftn(X, axes=tuple(axes))
    return np.stack([y.real, y.imag], -1).astype(X.dtype)


def _irfft_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    return [(*shape[:-2], (shape[-2] - 1) * 2)]


def _irfft(X: Array, **attrs: Any) -> Array:
    _one_sided(attrs)
    y = X[..., 0] + 1j * X[..., 1]
    axes = range(y.ndim - attrs["signal_ndim"], y.ndim)
    return np.fft.irfftn(y, axes=tuple(axes)).astype(X.dtype)


def _one_sided(attrs: dict[str, Any]) -> None:
    if not attrs["onesided"] or attrs["normalized"]:
        raise ValueError("only onesided = 1 with normalized = 0 is defined")


# -- windows -------------------------------------------------------------------------------


def _unfold_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axis = site.axis(site.attr("dim"), len(shape))
    shape[axis] = floor_div(shape[axis] - site.attr("size"), site.attr("step")) + 1
    return [(*shape, site.attr("size"))]


def _unfold(X: Array, dim: int, size: int, step: int) -> Array:
    dim %= X.ndim  # the windows become one more axis at the end
    windows = np.lib.stride_tricks.sliding_window_view(X, size, dim)
    return np.take(windows, np.arange(0, windows.shape[dim], step), dim)


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


ROWS = (
    _row("Range", "start limit delta?", "Y", _range_shape, _range),
    _alias(gathers, "GatherND"),
    _alias(slicing, "Pad"),
    _alias(vision, "GridSample"),
    _row(
        "NGramRepeatBlock",
        "input_ids:i64 scores",
        "scores_out",
        lambda site: [site.shape(1)],
        _block_repeats,
        ngram_size=REQUIRED,
    ),
    _row("DynamicTimeWarping", "input:f32", "output:i32", _warping_shape, _warping),
    _row("Unique", "x", "y idx:i64 counts:i64", _unique_shape, _first_unique),
    _row(
        "IsAllFinite",
        "input*",
        "output:bool",
        lambda site: [()],
        _all_finite,
        isinf_only=0,
        isnan_only=0,
    ),
    _row(
        "BiasDropout",
        "data bias residual? ratio?:F training_mode?:bool",
        "output mask:bool",
        lambda site: [site.shape(0), site.shape(0)],
        _bias_dropout,
        seed=None,
    ),
    _row(
        "CropAndResize",
        "X rois batch_indices:i32 crop_size:i32",
        "Y",
        _crop_shape,
        _crop_and_resize,
        extrapolation_value=0.0,
        mode="bilinear",
    ),
    _row("Rfft", "X", "Y", _rfft_shape, _rfft, normalized=0, onesided=1, signal_ndim=1),
    _row("Irfft", "X", "Y", _irfft_shape, _irfft, normalized=0, onesided=1, signal_ndim=REQUIRED),
    _row("UnfoldTensor", "input", "output", _unfold_shape, _unfold, dim=-1, size=REQUIRED, step=1),
    _row(
        "TorchEmbedding",
        "weight indices:i64 padding_idx?:i64 scale_grad_by_freq?:bool",
        "Y",
        lambda site: [(*site.shape(1), *site.shape(0)[1:])],
        lambda weight, indices, padding=None, scale=None: weight[indices],
    ),
)

"""Operators that cut and pad: Slice, Pad, CenterCropPad, Trilu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.bounds import at_least, at_most, bounds, from_front
from tuili.ops.op import Result, op
from tuili.ops.shapes import moved, same
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, ceil_div, shape_text

_END = 10**9  # exporters write this, INT32_MAX or INT64_MAX for "to the end"


def _slice_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    # TorchScript's loops cut by the number of their round, which is no list.
    length = (*site.need_rank(1, 0, 1), 1)[0]
    axes = site.ints(3)
    if axes is None and (site.has(3) or not isinstance(length, int)):
        return [site.open(len(shape))]
    chosen = range(length) if axes is None and isinstance(length, int) else axes or ()
    chosen = site.axes(chosen, len(shape))
    steps = site.ints(4) if site.has(4) else (1,) * len(chosen)
    starts, ends = site.dims(1), site.dims(2)
    for name, given in (("starts", starts), ("ends", ends), ("steps", steps)):
        if given is not None and len(given) != len(chosen):
            site.fail(f"{len(given)} {name} are given for {len(chosen)} axes; expected one each")
    for index, axis in enumerate(chosen):
        cut = None
        if starts is not None and ends is not None and steps is not None:
            if steps[index] == 0:
                site.fail(f"the step along axis {axis} is 0; steps must not be 0")
            cut = sliced(shape[axis], starts[index], ends[index], steps[index])
        shape[axis] = site.fresh(axis) if cut is None else cut
    return [shape]


def sliced(size: Dim, start: Dim, end: Dim, step: int) -> Dim:
    """The size of a slice."""
    if step > 0:
        first, last = _from(size, start), _clamped(size, end, 0, size)
    else:
        first, last = _clamped(size, start, -1, size - 1), _clamped(size, end, -1, size - 1)
    span = last - first if step > 0 else first - last
    # The size of a tensor is never negative, whatever its expression says.
    return ceil_div(span if span == size else at_least(span, 0), abs(step))


def _from(size: Dim, start: Dim) -> Dim:
    """Where a slice begins; one beyond the end makes a negative span, which counts as empty."""
    if isinstance(start, int) and start >= _END:
        return size
    return start if bounds(start)[0] >= 0 else at_least(from_front(start, size), 0)


def _clamped(size: Dim, index: Dim, low: int, high: Dim) -> Dim:
    if isinstance(index, int) and index >= _END:
        return high
    if isinstance(index, int) and index <= -_END:
        return low
    least, most = bounds(index)
    found = from_front(index, size)
    above = found if least >= 0 else at_least(found, low)
    return above if most < 0 else at_most(above, high)


def slice_(
    data: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    """A strided window (Slice-13)."""
    starts, ends = np.ravel(starts), np.ravel(ends)
    count = len(starts)
    chosen = np.arange(count) if axes is None else axes
    strides = np.ones(count, int) if steps is None else steps
    window: list[Any] = [slice(None)] * data.ndim
    for axis, start, end, step in zip(chosen, starts, ends, strides, strict=True):
        size = data.shape[int(axis)]
        last: int | None = int(end)
        if step < 0:
            wrapped = int(end) + size if end < 0 else int(end)
            last = None if wrapped < 0 else wrapped
        window[int(axis)] = slice(int(start), last, int(step))
    return data[tuple(window)]


def _slice_dims(inputs: Sequence[Any], attrs: Any, dtype: Any) -> Any:
    """Slices of shapes: the window must be numbers, the data may be dims."""
    return moved(slice_)(inputs, attrs, dtype)


# -- pad -----------------------------------------------------------------------------------


def _pad_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axes = site.ints(3)
    if site.has(3) and axes is None:
        return [site.open(len(shape))]
    chosen = site.axes(range(len(shape)) if axes is None else axes, len(shape))
    pads = site.dims(1)
    if pads is not None and len(pads) != 2 * len(chosen):
        site.fail(
            f"{len(pads)} pads are given for {len(chosen)} axes of {shape_text(shape)};"
            " expected a begin and an end for each"
        )
    for index, axis in enumerate(chosen):
        if pads is None:
            shape[axis] = site.fresh(axis)
        else:
            padded = shape[axis] + pads[index] + pads[index + len(chosen)]
            if isinstance(padded, int) and padded < 0:  # those of a run are looked at there
                site.fail(f"axis {axis} of {shape_text(site.shape(0))}, padded, is {padded}")
            shape[axis] = padded
    return [shape]


_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(
    data: Array,
    pads: Array,
    value: Array | None = None,
    axes: Array | None = None,
    *,
    mode: str = "constant",
) -> Array:
    """The input with a border; negative pads crop (Pad-25)."""
    chosen = range(data.ndim) if axes is None else [int(axis) % data.ndim for axis in axes]
    widths = [(0, 0)] * data.ndim
    for index, axis in enumerate(chosen):
        widths[axis] = int(pads[index]), int(pads[index + len(pads) // 2])
    window = tuple(
        slice(max(-begin, 0), size - max(-end, 0))
        for (begin, end), size in zip(widths, data.shape, strict=True)
    )
    borders = [(max(begin, 0), max(end, 0)) for begin, end in widths]
    if mode in _MODES:
        return np.pad(data[window], borders, mode=_MODES[mode])  # pyright: ignore[reportCallIssue, reportArgumentType]
    cropped = data[window]
    sizes = [size + sum(border) for size, border in zip(cropped.shape, borders, strict=True)]
    empty: Any = "" if data.dtype == object else 0
    fill = empty if value is None else np.ravel(value)[0]
    result = np.full(sizes, fill, data.dtype)
    inner = [slice(begin, begin + n) for (begin, _), n in zip(borders, cropped.shape, strict=True)]
    result[tuple(inner)] = cropped
    return result


def _crop_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axes = site.attr("axes")
    chosen = site.axes(range(len(shape)) if axes is None else axes, len(shape))
    sizes = site.dims(1)
    for index, axis in enumerate(chosen):
        shape[axis] = site.fresh(axis) if sizes is None else sizes[index]
    return [shape]


def _center_crop_pad(data: Array, shape: Array, axes: Sequence[int] | None) -> Array:
    chosen = range(data.ndim) if axes is None else [axis % data.ndim for axis in axes]
    sizes = list(data.shape)
    for axis, size in zip(chosen, shape, strict=True):
        sizes[axis] = int(size)
    result = np.zeros(sizes, data.dtype)
    source: list[slice] = []
    target: list[slice] = []
    for old, new in zip(data.shape, sizes, strict=True):
        common = min(old, new)
        start, into = max(old - new, 0) // 2, max(new - old, 0) // 2
        source.append(slice(start, start + common))
        target.append(slice(into, into + common))
    result[tuple(target)] = data[tuple(source)]
    return result


def trilu(data: Array, k: Array | None = None, *, upper: int) -> Array:
    """The upper or lower triangle of matrices."""
    offset = 0 if k is None else int(np.ravel(k)[0])
    rows, columns = data.shape[-2:]
    keep = np.tri(rows, columns, offset - 1 if upper else offset, bool) ^ bool(upper)
    return np.where(keep, data, np.zeros((), data.dtype))


ROWS = (
    op(
        "Slice",
        "data starts:I ends:I axes?:I steps?:I",
        "output",
        _slice_shape,
        slice_,
        allow={"T": "any", "I": "index"},
        symbolic=_slice_dims,
    ),
    op(
        "Pad",
        "data pads:i64 value? axes?:I",
        "output",
        _pad_shape,
        pad,
        attrs={"mode": "constant"},
        allow={"T": "any", "I": "index"},
    ),
    op(
        "CenterCropPad",
        "data shape:I",
        "output",
        _crop_shape,
        _center_crop_pad,
        attrs={"axes": None},
        allow={"T": "any", "I": "index"},
    ),
    op("Trilu", "data k?:i64", "output", same, trilu, attrs={"upper": 1}),
)

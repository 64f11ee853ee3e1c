"""Sliding windows over spatial axes: output sizes, paddings and views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.bounds import at_most
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, ceil_div, floor_div


def defaults(values: Sequence[int] | None, count: int, default: int) -> tuple[int, ...]:
    """An attribute with one number for each axis, or the default for all."""
    return tuple(values) if values else (default,) * count


def window_attributes(
    site: Site, rank: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, dilations and pads of `rank` spatial axes; refuses other counts, steps below 1."""
    strides = defaults(site.attr("strides"), rank, 1)
    dilations = defaults(site.attr("dilations"), rank, 1)
    pads = defaults(site.attr("pads"), 2 * rank, 0)
    for name, values, count in (
        ("strides", strides, rank),
        ("dilations", dilations, rank),
        ("pads", pads, 2 * rank),
    ):
        if len(values) != count:
            site.fail(f"{name} {list(values)} has {len(values)} entries; expected {count}")
    for name, values in (("stride", strides), ("dilation", dilations)):
        if min(values, default=1) < 1:
            site.fail(f"{name}s {list(values)}: every {name} must be 1 or more")
    return strides, dilations, pads


def window_shape(site: Site, spatial: Sequence[Dim], kernel: Sequence[Dim]) -> list[Dim]:
    """The spatial sizes of a convolution or pool, by auto_pad, pads, strides, dilations."""
    rank = len(spatial)
    strides, dilations, pads = window_attributes(site, rank)
    if any(isinstance(taps, int) and taps < 1 for taps in kernel):
        site.fail(f"kernel_shape {list(kernel)}: every size must be 1 or more")
    result: list[Dim] = []
    for axis, size in enumerate(spatial):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        border = (pads[axis], pads[axis + rank])
        result.append(_window_count(site, size, reach, strides[axis], border))
    return result


def _window_count(site: Site, size: Dim, reach: Dim, stride: int, border: tuple[int, int]) -> Dim:
    auto = site.attr("auto_pad")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return ceil_div(size, stride)
    begin, end = (0, 0) if auto == "VALID" else border
    room = size + begin + end - reach
    rounds_up = site.op.attrs.get("ceil_mode") is not None and site.attr("ceil_mode")
    least = 1 - stride if rounds_up else 0  # a window that reaches over the end
    if isinstance(room, int) and room < least:
        site.fail(f"a window of {reach} does not fit into size {size} with pads {begin}, {end}")
    site.at_least(size + begin + end, reach + least, "a padded size against the window over it")
    if rounds_up:
        # Windows that would start in the end padding are left out.
        return at_most(ceil_div(room, stride) + 1, ceil_div(size + begin, stride))
    return floor_div(room, stride) + 1


def resolve_pads(
    sizes: Sequence[int], kernel: Sequence[int], attrs: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, dilations and pads as numbers, auto_pad resolved."""
    rank = len(sizes)
    strides = defaults(attrs.get("strides"), rank, 1)
    dilations = defaults(attrs.get("dilations"), rank, 1)
    auto = attrs.get("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        pads = (0,) * (2 * rank) if auto == "VALID" else defaults(attrs.get("pads"), 2 * rank, 0)
        return strides, dilations, pads
    begins: list[int] = []
    ends: list[int] = []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = dilation * (taps - 1) + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return strides, dilations, (*begins, *ends)


def view_windows(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Array:
    """A view [N, C, *out, *kernel] of all windows of a padded input [N, C, *in]."""
    rank = len(kernel)
    reach = [dilation * (taps - 1) + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    every = (slice(None), slice(None))
    starts = tuple(slice(None, None, stride) for stride in strides)
    taps = tuple(slice(None, None, dilation) for dilation in dilations)
    return windows[every + starts + taps]


def padded(x: Array, pads: Sequence[int], fill: Any) -> Array:
    """The input with its spatial axes padded by begins and ends."""
    rank = len(pads) // 2
    widths = [(0, 0), (0, 0), *((pads[axis], pads[axis + rank]) for axis in range(rank))]
    if all(width == (0, 0) for width in widths):
        return x
    return np.pad(x, widths, constant_values=fill)

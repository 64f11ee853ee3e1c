"""Frames: the pictures of a volume side by side, as many as a window over its depth sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.ops.op import Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, floor_div

_WINDOW = ("taps", "stride", "dilation", "pads")


def _frames_shape(site: Site) -> list[Result]:
    _, channels, height, width = site.need_rank(0, 4)
    counts = site.dims(1)
    if counts is None:
        site.fail("its counts must be a shape; a pass writes this operator")
    batch, depth = counts
    taps, stride, dilation, pads = (site.attr(name) for name in _WINDOW)
    reach = (taps - 1) * dilation + 1
    site.at_least(depth + sum(pads), reach, "a padded depth against the window over it")
    windows = count_windows(depth, taps, stride, dilation, pads)
    return [(batch * windows, taps * channels, height, width)]


def count_windows(depth: Dim, taps: int, stride: int, dilation: int, pads: Sequence[int]) -> Dim:
    """How many windows there are over a depth."""
    return floor_div(depth + sum(pads) - (taps - 1) * dilation - 1, stride) + 1


def _frames(
    x: Array,
    counts: Array,
    *,
    taps: int,
    stride: int,
    dilation: int,
    pads: tuple[int, ...],
    clamp: int,
    fill: int,
) -> Array:
    batch, depth = (int(count) for count in counts)
    windows = int(count_windows(depth, taps, stride, dilation, pads))  # pyright: ignore[reportArgumentType]
    at = np.arange(windows)[:, None] * stride - pads[0] + np.arange(taps) * dilation
    volume = x.reshape(batch, depth, *x.shape[1:])
    seen = volume[:, at.clip(0, depth - 1)]
    if not clamp:
        inside = ((at >= 0) & (at < depth))[..., None, None, None]
        seen = np.where(inside, seen, np.asarray(fill, x.dtype))
    return seen.reshape(batch * windows, taps * x.shape[1], *x.shape[2:])


ROWS = (
    # [N * D, C, H, W], the counts being N and D, to [N * windows, taps * C, H, W]. Pictures beyond
    # the ends are full of `fill`, or with `clamp` the first and the last one; negative pads crop.
    op(
        "Frames",
        "x counts:i64",
        "y",
        _frames_shape,
        _frames,
        attrs={"taps": 1, "stride": 1, "dilation": 1, "pads": (0, 0), "clamp": 0, "fill": 0},
    ),
)  # fmt: skip

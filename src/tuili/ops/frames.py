"""Volumes as their pictures: those that a window over the depth sees, and what it makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.ops.convolution import conv
from tuili.ops.op import Result, op
from tuili.ops.site import Site
from tuili.ops.windows import window_shape
from tuili.tensors import Array, Dim, floor_div


def _frames_shape(site: Site) -> list[Result]:
    _, channels, height, width = site.need_rank(0, 4)
    counts = site.dims(1)
    if counts is None:
        site.fail("its counts must be a shape; a pass writes this operator")
    batch, depth = counts
    taps = site.attr("taps")
    windows = _counted(site, depth, taps, "pads")
    return [(batch * windows, taps * channels, height, width)]


def _counted(site: Site, depth: Dim, taps: int, pads_name: str) -> Dim:
    stride, dilation, pads = (site.attr(name) for name in ("stride", "dilation", pads_name))
    reach = (taps - 1) * dilation + 1
    site.at_least(depth + sum(pads), reach, "a padded depth against the window over it")
    return count_windows(depth, taps, stride, dilation, pads)


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


def _each_shape(site: Site) -> list[Result]:
    _, channels, *plane = site.need_rank(0, 4)
    weights, counts = site.need_rank(1, 5), site.dims(2)
    taps = weights[2]
    if counts is None or not isinstance(taps, int):
        site.fail("its counts and weights must be known; a pass writes this operator")
    site.same(channels, weights[0], "channels of the input against the weights")
    windows = _counted(site, counts[1], taps, "depth_pads")
    return [(counts[0] * windows, channels, *window_shape(site, plane, weights[3:]))]


def _each(
    x: Array,
    weights: Array,
    counts: Array,
    bias: Array | None = None,
    *,
    stride: int,
    dilation: int,
    depth_pads: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    **_: object,
) -> Array:
    volume = x.reshape(*(int(count) for count in counts), *x.shape[1:]).swapaxes(1, 2)
    y = conv(
        volume,
        weights,
        bias,
        group=x.shape[1],
        strides=(stride, *strides),
        dilations=(dilation, *dilations),
        pads=(depth_pads[0], *pads[:2], depth_pads[1], *pads[2:]),
    ).swapaxes(1, 2)
    return y.reshape(-1, *y.shape[2:])


ROWS = (
    # A convolution of every channel by itself over volumes that are given as pictures:
    # [N * D, C, H, W], weights [C, 1, KD, KH, KW], the counts N and D, to [N * windows, C, OH, OW].
    op(
        "EachChannelOfFrames",
        "x w counts:i64 b?",
        "y",
        _each_shape,
        _each,
        allow="float",
        attrs={
            "stride": 1, "dilation": 1, "depth_pads": (0, 0), "auto_pad": "NOTSET",
            "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0),
        },
    ),
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

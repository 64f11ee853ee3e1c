"""Convolutions: Conv, ConvTranspose, ConvInteger, DeformConv, Col2Im, CausalConvWithState."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.activations import sigmoid
from tuili.ops.op import Result, op
from tuili.ops.site import Site
from tuili.ops.windows import (
    defaults,
    padded,
    resolve_pads,
    view_windows,
    window_attributes,
    window_shape,
)
from tuili.tensors import Array, Dim, floor_div, shape_text

CONV_ATTRS: dict[str, Any] = {
    "auto_pad": "NOTSET",
    "dilations": None,
    "group": 1,
    "kernel_shape": None,
    "pads": None,
    "strides": None,
}


def _check_group(site: Site) -> int:
    group = site.attr("group")
    if group < 1:
        site.fail(f"attribute 'group' is {group}; expected 1 or more")
    return group


def conv_shape(site: Site, weight: int = 1) -> list[Result]:
    """[N, M, *out] for an input [N, C, *in] and weights [M, C / group, *kernel]."""
    x, w = site.shape(0), site.shape(weight)
    if len(x) < 3 or len(x) != len(w):
        site.fail(
            f"input {shape_text(x)} and weights {shape_text(w)}; expected equal ranks of 3 or more"
        )
    group = _check_group(site)
    site.same(x[1], w[1] * group, f"channels of the input against weights times group {group}")
    if isinstance(w[0], int) and w[0] % group:
        site.fail(f"{w[0]} output channels do not divide by group {group}")
    kernel = site.attr("kernel_shape") or w[2:]
    if len(kernel) != len(x) - 2:
        site.fail(f"kernel_shape {list(kernel)} has {len(kernel)} entries; expected {len(x) - 2}")
    for given, real in zip(kernel, w[2:], strict=True):
        site.same(given, real, "kernel_shape differs from the weights")
    return [(x[0], w[0], *window_shape(site, x[2:], kernel))]


def _wide(array: Array) -> Array:
    """Sums of products are taken in f64: an oracle should not add errors of its own."""
    return array.astype(np.float64)


def conv(X: Array, W: Array, B: Array | None = None, **attrs: Any) -> Array:
    """Convolution by one matrix product for each group (Conv-22)."""
    kernel = W.shape[2:]
    strides, dilations, pads = resolve_pads(X.shape[2:], kernel, attrs)
    windows = view_windows(padded(_wide(X), pads, 0), kernel, strides, dilations)
    result = _products(windows, _wide(W), attrs.get("group", 1))
    result = result if B is None else result + _wide(B).reshape(-1, *[1] * len(kernel))
    return result.astype(X.dtype)


def _products(windows: Array, weights: Array, group: int) -> Array:
    rank = weights.ndim - 2
    n, channels, *out = windows.shape[: 2 + rank]
    m, depth = weights.shape[0], int(np.prod(weights.shape[1:]))
    grouped = windows.reshape(n, group, channels // group, *windows.shape[2:])
    # [group, N, *out, C / group, *kernel]
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    columns = grouped.transpose(order).reshape(group, -1, depth)
    filters = weights.reshape(group, m // group, depth).transpose(0, 2, 1)
    product = np.matmul(columns, filters).reshape(group, n, *out, m // group)
    return np.moveaxis(product, (0, -1), (1, 2)).reshape(n, m, *out)


# -- transposed ----------------------------------------------------------------------------


def conv_transpose_shape(site: Site) -> list[Result]:
    """[N, M, *out] for weights [C, M / group, *kernel]."""
    x, w = site.shape(0), site.shape(1)
    if len(x) < 3 or len(x) != len(w):
        site.fail(f"input {shape_text(x)} and weights {shape_text(w)}; expected equal ranks")
    site.same(x[1], w[0], "channels of the input against the weights")
    rank = len(x) - 2
    _check_group(site)
    strides, _, _ = window_attributes(site, rank)
    extra = defaults(site.attr("output_padding"), rank, 0)
    if len(extra) != rank:
        site.fail(f"output_padding {list(extra)} has {len(extra)} entries; expected {rank}")
    if sizes := site.attr("output_shape"):
        # Some exporters put the batch and the channels in front.
        if len(sizes) not in (rank, rank + 2) or min(sizes) < 1:
            site.fail(f"output_shape {list(sizes)}; expected {rank} sizes of 1 or more")
        return [(x[0], w[1] * site.attr("group"), *sizes[-rank:])]
    result: list[Dim] = []
    for axis, size in enumerate(x[2:]):
        result.append(_transposed_size(site, axis, size, w[2 + axis], strides[axis]))
    return [(x[0], w[1] * site.attr("group"), *result)]


def _transposed_size(site: Site, axis: int, size: Dim, taps: Dim, stride: int) -> Dim:
    rank = site.rank(0) - 2
    if site.attr("auto_pad") in ("SAME_UPPER", "SAME_LOWER"):
        return size * stride
    pads = defaults(site.attr("pads"), 2 * rank, 0)
    border = 0 if site.attr("auto_pad") == "VALID" else pads[axis] + pads[axis + rank]
    reach = defaults(site.attr("dilations"), rank, 1)[axis] * (taps - 1) + 1
    extra = defaults(site.attr("output_padding"), rank, 0)[axis]
    full = stride * (size - 1) + reach + extra
    site.at_least(full, border, "what a transposed convolution gives against its pads")
    return full - border


def conv_transpose(X: Array, W: Array, B: Array | None = None, **attrs: Any) -> Array:
    """Every input element adds its kernel into the output (ConvTranspose-22)."""
    group, kernel = attrs["group"], W.shape[2:]
    rank = len(kernel)
    n, channels, *sizes = X.shape
    m = W.shape[1]
    x = _wide(X).reshape(n, group, channels // group, -1)
    w = _wide(W).reshape(group, channels // group, -1)
    columns = np.matmul(w.transpose(0, 2, 1), x).reshape(n, group * m, *kernel, *sizes)
    strides = defaults(attrs.get("strides"), rank, 1)
    dilations = defaults(attrs.get("dilations"), rank, 1)
    extra = defaults(attrs.get("output_padding"), rank, 0)
    reach = [dilations[a] * (kernel[a] - 1) + 1 for a in range(rank)]
    full = [strides[a] * (sizes[a] - 1) + reach[a] for a in range(rank)]
    begins, lengths = _transposed_window(sizes, full, strides, extra, attrs)
    if min(lengths) < 0:
        raise ValueError(f"the pads take more than the {full} that there is")
    canvas = [max(full[a], begins[a] + lengths[a]) for a in range(rank)]
    result = np.zeros((n, group * m, *canvas), columns.dtype)
    for taps in np.ndindex(*kernel):
        starts = [taps[a] * dilations[a] for a in range(rank)]
        window = tuple(
            slice(starts[a], starts[a] + strides[a] * sizes[a], strides[a]) for a in range(rank)
        )
        result[(..., *window)] += columns[(slice(None), slice(None), *taps)]
    crop = tuple(slice(b, b + length) for b, length in zip(begins, lengths, strict=True))
    cut = result[(..., *crop)]
    return (cut if B is None else cut + _wide(B).reshape(-1, *[1] * rank)).astype(X.dtype)


def _transposed_window(
    sizes: list[int],
    full: list[int],
    strides: tuple[int, ...],
    extra: tuple[int, ...],
    attrs: dict[str, Any],
) -> tuple[list[int], list[int]]:
    """Where the output begins inside the full result, and how long it is."""
    rank = len(sizes)
    auto = attrs.get("auto_pad", "NOTSET")
    wanted = attrs.get("output_shape")
    same = auto in ("SAME_UPPER", "SAME_LOWER")
    if not wanted and not same:
        pads = defaults(attrs.get("pads") if auto == "NOTSET" else None, 2 * rank, 0)
        lengths = [full[a] + extra[a] - pads[a] - pads[a + rank] for a in range(rank)]
        return list(pads[:rank]), lengths
    lengths = list(wanted[-rank:]) if wanted else [sizes[a] * strides[a] for a in range(rank)]
    totals = [max(full[a] + extra[a] - lengths[a], 0) for a in range(rank)]
    if auto == "SAME_UPPER":
        return [total // 2 for total in totals], lengths
    return [total - total // 2 for total in totals], lengths


# -- integer, deformable, stateful ---------------------------------------------------------


def _per_channel(zero: Array | None, rank: int) -> Array:
    if zero is None:
        return np.zeros((), np.int32)
    wide = zero.astype(np.int32)
    return wide.reshape(-1, *[1] * (rank - 1)) if wide.size > 1 else wide.reshape(())


def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    **attrs: Any,
) -> Array:
    """Convolution of 8-bit integers in i32 (ConvInteger-10); padding stands for the zero point."""
    left = (x.astype(np.int32) - _per_channel(x_zero_point, 1)).astype(np.float64)
    right = (w.astype(np.int32) - _per_channel(w_zero_point, w.ndim)).astype(np.float64)
    return conv(left, right, **attrs).astype(np.int32)


def _deform_conv(
    X: Array,
    W: Array,
    offset: Array,
    B: Array | None = None,
    mask: Array | None = None,
    *,
    group: int,
    offset_group: int,
    **attrs: Any,
) -> Array:
    n, channels, height, width = X.shape
    kernel = W.shape[2:]
    strides, dilations, pads = resolve_pads((height, width), kernel, attrs)
    taps = kernel[0] * kernel[1]
    out_h, out_w = offset.shape[2:]
    moves = offset.reshape(n, offset_group, kernel[0], kernel[1], 2, out_h, out_w)
    columns = np.zeros((n, channels, out_h, out_w, *kernel), np.float64)
    part = channels // offset_group
    rows = np.arange(out_h)[:, None] * strides[0] - pads[0]
    lines = np.arange(out_w)[None, :] * strides[1] - pads[1]
    for batch, block, i, j in np.ndindex(n, offset_group, *kernel):
        y = rows + i * dilations[0] + moves[batch, block, i, j, 0]
        x = lines + j * dilations[1] + moves[batch, block, i, j, 1]
        picked = _bilinear(X[batch, block * part : (block + 1) * part].astype(np.float64), y, x)
        if mask is not None:
            picked = (
                picked
                * mask.reshape(n, offset_group, taps, out_h, out_w)[batch, block, i * kernel[1] + j]
            )
        columns[batch, block * part : (block + 1) * part, :, :, i, j] = picked
    result = _products(columns, W.astype(np.float64), group)
    return (result if B is None else result + B.reshape(-1, 1, 1)).astype(X.dtype)


def _bilinear(x: Array, rows: Array, columns: Array) -> Array:
    """Values of [C, H, W] at real positions; zero outside."""
    height, width = x.shape[1:]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    total = np.zeros((x.shape[0], *rows.shape))
    for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
        i, j = top + di, left + dj
        weight = (1 - np.abs(rows - i)) * (1 - np.abs(columns - j))
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        picked = x[:, np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)]
        total += np.where(inside, picked * weight, 0)
    return total


def _deform_shape(site: Site) -> list[Result]:
    return conv_shape(site)


def _causal_shape(site: Site) -> list[Result]:
    n, channels, _ = x = site.need_rank(0, 3)
    return [x, (n, channels, site.shape(1)[2] - 1)]


def _causal_conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    past: Array | None = None,
    *,
    activation: str,
) -> tuple[Array, Array]:
    taps = weight.shape[-1]
    before = np.zeros((*x.shape[:2], taps - 1), x.dtype) if past is None else past
    line = np.concatenate([before, x], -1)
    result = conv(line, weight, bias, group=x.shape[1])
    if activation in ("silu", "swish"):
        result = result * sigmoid(result)
    return result, line[..., line.shape[-1] - taps + 1 :]


def _col2im_shape(site: Site) -> list[Result]:
    n, rows, places = site.need_rank(0, 3)
    image, block = site.dims(1), site.ints(2)
    if image is None or block is None:
        rank = site.shape(1)[0]
        return [site.open(2 + rank) if isinstance(rank, int) else None]
    taps = int(np.prod(block))
    site.divides(taps, rows, "the rows of blocks")
    site.same(places, _num_blocks(site, image, block), "the columns against the places of a block")
    return [(n, rows // taps, *image)]


def _num_blocks(site: Site, image: Sequence[Dim], block: Sequence[int]) -> Dim:
    rank = len(block)
    count: Dim = 1
    strides, dilations = (site.attr(name) or (1,) * rank for name in ("strides", "dilations"))
    pads = site.attr("pads") or (0,) * 2 * rank
    for axis, size in enumerate(image):
        reach = dilations[axis] * (block[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + rank] - reach
        count = count * (floor_div(room, strides[axis]) + 1)
    return count


def _col2im(data: Array, image_shape: Array, block_shape: Array, **attrs: Any) -> Array:
    kernel, image = tuple(block_shape.tolist()), tuple(image_shape.tolist())
    rank = len(kernel)
    strides, dilations, pads = resolve_pads(image, kernel, attrs)
    n, channels = data.shape[0], data.shape[1] // int(np.prod(kernel))
    sizes = [image[a] + pads[a] + pads[a + rank] for a in range(rank)]
    reach = [dilations[a] * (kernel[a] - 1) + 1 for a in range(rank)]
    counts = [(sizes[a] - reach[a]) // strides[a] + 1 for a in range(rank)]
    columns = data.reshape(n, channels, *kernel, *counts)
    result = np.zeros((n, channels, *sizes), data.dtype)
    for taps in np.ndindex(*kernel):
        starts = [taps[a] * dilations[a] for a in range(rank)]
        window = [slice(s, s + t * c, t) for s, t, c in zip(starts, strides, counts, strict=True)]
        result[(..., *window)] += columns[(slice(None), slice(None), *taps)]
    crop = [slice(pads[a], pads[a] + image[a]) for a in range(rank)]
    return result[(..., *crop)]


_WINDOW = {"dilations": None, "pads": None, "strides": None}

ROWS = (
    op("Conv", "X W B?", "Y", conv_shape, conv, attrs=CONV_ATTRS, allow="float"),
    op(
        "ConvTranspose",
        "X W B?",
        "Y",
        conv_transpose_shape,
        conv_transpose,
        allow="float",
        attrs={**CONV_ATTRS, "output_padding": None, "output_shape": None},
    ),
    op(
        "ConvInteger",
        "x:X w:W x_zero_point?:X w_zero_point?:W",
        "y:i32",
        conv_shape,
        conv_integer,
        attrs=CONV_ATTRS,
        allow={"X": "byte", "W": "byte"},
    ),
    op(
        "DeformConv",
        "X W offset B? mask?",
        "Y",
        _deform_shape,
        _deform_conv,
        allow="float",
        attrs={"group": 1, "kernel_shape": None, "offset_group": 1, **_WINDOW},
    ),
    op(
        "Col2Im",
        "input image_shape:i64 block_shape:i64",
        "output",
        _col2im_shape,
        _col2im,
        attrs=_WINDOW,
    ),
    op(
        "CausalConvWithState",
        "input weight bias? past_state?",
        "output present_state",
        _causal_shape,
        _causal_conv,
        attrs={"activation": "none"},
        allow="float",
    ),
)

"""com.microsoft: older names of standard operators, and single operators of some model families."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops import creation, gathers, slicing, vision
from tuili.ops.contrib_math import unpack_bits
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, DType, floor_div

# -- the standard's operators under their first name ---------------------------------------


def _alias(family: Any, name: str) -> Op:
    (row,) = (row for row in family.ROWS if row.name == name)
    return replace(row, name=f"com.microsoft::{name}")


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


def _gather_blocks_shape(site: Site) -> list[Result]:
    data = list(site.shape(0))
    axis = site.axis(site.attr("gather_axis"), len(data))
    if site.dtype(0) is DType.U8:
        data[-1] = data[-1] * (8 // site.attr("bits"))
    shape = (*data[:axis], *site.shape(1), *data[axis + 1 :])
    return [TensorType(site.dtype(2), shape)]


def _gather_blocks(
    data: Array, indices: Array, scales: Array, zero_points: Array | None = None, *,
    bits: int, block_size: int, gather_axis: int, quantize_axis: int,
) -> Array:  # fmt: skip
    packed = data.dtype == np.uint8
    codes = unpack_bits(data, bits, data.shape[-1] * (8 // bits)) if packed else data
    zeros: Any = 2 ** (bits - 1) if packed else 0
    if zero_points is not None:
        zeros = unpack_bits(zero_points, bits, scales.shape[-1]) if packed else zero_points
        zeros = _stretched(zeros.astype(np.float32), codes.shape, quantize_axis, block_size)
    factors = _stretched(scales.astype(np.float32), codes.shape, quantize_axis, block_size)
    real = (codes.astype(np.float32) - zeros) * factors
    return np.take(real, indices.astype(np.int64), gather_axis).astype(scales.dtype)


def _stretched(x: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    return np.repeat(x, block, axis).take(np.arange(shape[axis]), axis)


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
    _alias(creation, "Range"),
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
    _row(
        "GatherBlockQuantized",
        "data:D indices:I scales zero_points?:D",
        "output:any",
        _gather_blocks_shape,
        _gather_blocks,
        bits=4,
        block_size=128,
        gather_axis=0,
        quantize_axis=1,
    ),
    _row("UnfoldTensor", "input", "output", _unfold_shape, _unfold, dim=-1, size=REQUIRED, step=1),
    _row(
        "TorchEmbedding",
        "weight indices:i64 padding_idx?:i64 scale_grad_by_freq?:bool",
        "Y",
        lambda site: [(*site.shape(1), *site.shape(0)[1:])],
        lambda weight, indices, padding=None, scale=None: weight[indices],
    ),
)

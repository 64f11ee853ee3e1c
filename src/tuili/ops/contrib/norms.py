"""com.microsoft: normalisations with what surrounds them: skips, biases, embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.activations import sigmoid
from tuili.ops.contrib.convolution import to_back, to_front
from tuili.ops.movement import reshape
from tuili.ops.normalization import normalize, softmax
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array


def _skip_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    stats = (*shape[:-1], 1)
    return [shape, stats, stats, shape]


def _skip_layer_norm(
    x: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    *,
    epsilon: float,
) -> tuple[Array, ...]:
    total = x + skip if bias is None else x + bias + skip
    y, mean, inverse = normalize(total.astype(np.float32), (-1,), epsilon)
    y = y * gamma.astype(np.float32)
    return y if beta is None else y + beta, mean, inverse, total


def _skip_rms_norm(
    x: Array, skip: Array, gamma: Array, bias: Array | None = None, *, epsilon: float
) -> tuple[Array, ...]:
    total = x + skip if bias is None else x + skip + bias
    y, inverse = _rms(total, epsilon)
    return y * gamma, np.zeros_like(inverse), inverse, total


def _rms(x: Array, epsilon: float) -> tuple[Array, Array]:
    wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
    inverse = 1 / np.sqrt((wide * wide).mean(-1, keepdims=True) + wide.dtype.type(epsilon))
    return wide * inverse, inverse


def _simplified_norm(
    X: Array, scale: Array, *, axis: int, epsilon: float, stash_type: int
) -> tuple[Array, Array]:
    axis %= X.ndim
    flat = reshape(X, np.array([*X.shape[:axis], -1]))
    y, inverse = _rms(flat, epsilon)
    return y.reshape(X.shape) * scale, inverse.reshape(*X.shape[:axis], *[1] * (X.ndim - axis))


def _simplified_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.axis(site.attr("axis"), len(shape))
    return [shape, (*shape[:axis], *[1] * (len(shape) - axis))]


def _group_norm(
    X: Array, gamma: Array, beta: Array, *, activation: int, channels_last: int, epsilon: float,
    groups: int,
) -> Array:  # fmt: skip
    x = (to_front(X) if channels_last else X).astype(np.float32)
    grouped = normalize(x.reshape(x.shape[0], groups, -1), (2,), epsilon)[0].reshape(x.shape)
    column = (-1, *[1] * (x.ndim - 2))
    y = grouped * gamma.reshape(column) + beta.reshape(column)
    y = y * sigmoid(y) if activation else y
    return to_back(y) if channels_last else y


def _skip_group_shape(site: Site) -> list[Result]:
    return [site.shape(0), site.shape(0)]


def _skip_group_norm(
    X: Array, gamma: Array, beta: Array, skip: Array, bias: Array | None = None, **attrs: Any
) -> tuple[Array, Array]:
    if skip.ndim == 2:
        places = (1, 2) if attrs["channels_last"] else (2, 3)
        skip = np.expand_dims(skip, places)
    elif not attrs["channels_last"] and skip.shape[-1] == X.shape[1] != X.shape[-1]:
        skip = to_front(skip)
    total = X + skip
    if bias is not None:
        total = total + (bias if attrs["channels_last"] else bias[:, None, None])
    return _group_norm(total, gamma, beta, **attrs), total


def _embed_shape(site: Site) -> list[Result]:
    batch, length = site.need_rank(0, 2)
    hidden = site.shape(2)[1]
    mask = (batch,) if site.attr("mask_index_type") != 2 else (batch, length)
    return [(batch, length, hidden), mask, (batch, length, hidden)]


def _embed_layer_norm(
    input_ids: Array,
    segment_ids: Array | None,
    words: Array,
    positions: Array,
    segments: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    *,
    epsilon: float,
    mask_index_type: int,
) -> tuple[Array, ...]:
    places = np.arange(input_ids.shape[1]) if position_ids is None else position_ids
    total = words[input_ids] + positions[places]
    if segments is not None and segment_ids is not None:
        total = total + segments[segment_ids]
    y, _, _ = normalize(total.astype(np.float32), (-1,), epsilon)
    lengths = np.zeros(len(input_ids), np.int32) if mask is None else mask.sum(1).astype(np.int32)
    return y * gamma + beta, lengths, total


def _q_embed_shape(site: Site) -> list[Result]:
    batch, length = site.need_rank(0, 2)
    return [(batch, length, site.shape(2)[1]), (batch,)]


def _q_embed_layer_norm(
    input_ids: Array, segment_ids: Array | None, words: Array, positions: Array,
    segments: Array | None, gamma: Array, beta: Array, mask: Array | None, *others: Array | None,
    epsilon: float,
) -> tuple[Array, ...]:  # fmt: skip
    """Tables of bytes, with scales and then zero points of the five tables in order."""
    tables = (words, positions, segments, gamma, beta)
    real = [
        None if table is None or scale is None or zero is None
        else (table.astype(np.float32) - zero.astype(np.float32)) * scale
        for table, scale, zero in zip(tables, others[:5], others[5:], strict=True)
    ]  # fmt: skip
    own: Any = [input_ids, segment_ids, *real, mask]
    y, lengths, _ = _embed_layer_norm(*own, epsilon=epsilon, mask_index_type=0)
    return y, lengths


def _bias_softmax(data: Array, bias: Array, axis: int, is_inner_broadcast: int) -> Array:
    if not is_inner_broadcast and bias.ndim < data.ndim:
        bias = bias.reshape(*bias.shape[:1], *[1] * (data.ndim - bias.ndim), *bias.shape[1:])
    total = data + bias
    axis %= data.ndim
    flat = total.reshape(*total.shape[:axis], -1)
    return softmax(flat, -1).reshape(data.shape)


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_SKIP = "output mean:f32 inv_std_var:f32 input_skip_bias_sum"
_TINY = 1e-12

ROWS = (
    _row(
        "BiasSoftmax",
        "data bias",
        "output",
        same,
        _bias_softmax,
        axis=1,
        is_inner_broadcast=REQUIRED,
    ),
    _row(
        "SkipLayerNormalization",
        "input skip gamma beta? bias?",
        _SKIP,
        _skip_shape,
        _skip_layer_norm,
        epsilon=_TINY,
    ),
    _row(
        "SkipSimplifiedLayerNormalization",
        "input skip gamma bias?",
        _SKIP,
        _skip_shape,
        _skip_rms_norm,
        epsilon=_TINY,
    ),
    _row(
        "EmbedLayerNormalization",
        "input_ids:i32 segment_ids?:i32 word_embedding position_embedding segment_embedding?"
        " gamma beta mask?:i32 position_ids?:i32",
        "output mask_index:i32 embedding_sum",
        _embed_shape,
        _embed_layer_norm,
        epsilon=_TINY,
        mask_index_type=0,
    ),
    _row(
        "GroupNorm",
        "X gamma:M beta:M",
        "Y",
        same,
        _group_norm,
        activation=REQUIRED,
        channels_last=1,
        epsilon=1e-5,
        groups=REQUIRED,
    ),
    _row(
        "SkipGroupNorm",
        "X gamma:M beta:M skip bias?",
        "Y S",
        _skip_group_shape,
        _skip_group_norm,
        activation=REQUIRED,
        channels_last=1,
        epsilon=1e-5,
        groups=REQUIRED,
    ),
    _row(
        "QEmbedLayerNormalization",
        "input_ids:i32 segment_ids?:i32 word_embedding_quant:Q position_embedding_quant:Q"
        " segment_embedding?:Q gamma_quant:Q beta_quant:Q mask?:i32 word_embedding_scale:f32"
        " position_embedding_scale:f32 segment_embedding_scale?:f32 gamma_scale:f32 beta_scale:f32"
        " word_embedding_zero_point:Q position_embedding_zero_point:Q"
        " segment_embedding_zero_point?:Q gamma_zero_point:Q beta_zero_point:Q",
        "layernorm_out:f32 mask_index_out:i32",
        _q_embed_shape,
        _q_embed_layer_norm,
        epsilon=_TINY,
    ),
    op(
        "SimplifiedLayerNormalization",
        "X scale:V",
        "Y:V inv_std_var:f32",
        _simplified_shape,
        _simplified_norm,
        attrs={"axis": -1, "epsilon": 1e-5, "stash_type": 1},
    ),
)

"""com.microsoft: rotary embeddings: a position a token, three for pictures, or given angles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.attention import rotary, turned_by
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array


def _rotary(
    x: Array, position_ids: Array, cos: Array, sin: Array, *, interleaved: int,
    is_packed_batching: int, num_heads: int, rotary_embedding_dim: int, scale: float,
) -> Array:  # fmt: skip
    length = x.shape[-2] if x.ndim == 4 else x.shape[1]
    places = position_ids
    if position_ids.ndim == 1:
        places = np.broadcast_to(position_ids + np.arange(length), (x.shape[0], length))
    return _turned(x, cos[places], sin[places], interleaved, num_heads, rotary_embedding_dim)


def _rotary_shape(site: Site) -> list[Result]:
    shape = site.need_rank(0, 3, 4)
    width = site.attr("rotary_embedding_dim") or site.shape(2)[-1] * 2
    turned_by(site, (2, 3), width)
    if len(shape) == 4:
        batch, _, length, size = shape
    else:
        batch, length, total = shape
        size = total // (site.attr("num_heads") or total // width)
    site.at_least(size, width, "elements of a head for those that are turned")
    places = site.need_rank(1, 1, 2)
    if len(places) == 1:
        site.same(places[0], 1, "a position for the first token")
    else:
        site.broadcasts_to(places, (batch, length), "positions for the tokens")
    return [shape]


def _turned(
    x: Array, cos: Array, sin: Array, interleaved: int, num_heads: int, width: int
) -> Array:
    """With [B, S, width / 2] cosines and sines."""
    width = width or 2 * cos.shape[-1]
    heads = num_heads or (x.shape[-1] // width if x.ndim == 3 else None)
    return rotary(x, cos, sin, interleaved=interleaved, num_heads=heads, rotary_embedding_dim=width)


def _three_positions(
    x: Array, position_ids: Array, cos: Array, sin: Array, *, interleaved: int,
    is_packed_batching: int, mrope_layout: int, mrope_section: Sequence[int], num_heads: int,
    rotary_embedding_dim: int, scale: float,
) -> Array:  # fmt: skip
    """Each angle belongs to time, height or width: the three of `position_ids` [3, B, S]."""
    stream = _streams(cos.shape[-1], mrope_section, mrope_layout)
    angle = np.arange(cos.shape[-1])
    places = position_ids[stream].transpose(1, 2, 0)  # [B, S, angles]
    return _turned(
        x, cos[places, angle], sin[places, angle], interleaved, num_heads, rotary_embedding_dim
    )


def _streams(count: int, section: Sequence[int], layout: int) -> Array:
    """Which of the three positions each angle uses."""
    if layout == 0:
        return np.repeat(np.arange(3), section)
    streams = np.zeros(count, np.int64)
    for stream in (1, 2):
        streams[stream : section[stream] * 3 : 3] = stream
    return streams


def _gemma(angles: Array, q: Array, q_rot: Array, k: Array, k_rot: Array) -> tuple[Array, Array]:
    """Queries and keys turned by angles [B, S, D]; those of `_rot` have their halves swapped."""
    sin, cos = np.sin(angles)[:, None].astype(q.dtype), np.cos(angles)[:, None].astype(q.dtype)
    return q * cos + q_rot * sin, k * cos + k_rot * sin


def _gemma_shape(site: Site) -> list[Result]:
    return [site.shape(1), site.shape(3)]


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_ATTRS = {
    "interleaved": 0,
    "is_packed_batching": 0,
    "num_heads": 0,
    "rotary_embedding_dim": 0,
    "scale": 1.0,
}
_INPUTS = "input position_ids:i64 cos_cache sin_cache"

ROWS = (
    _row("RotaryEmbedding", _INPUTS, "output", _rotary_shape, _rotary, **_ATTRS),
    _row(
        "MRotaryEmbedding",
        _INPUTS,
        "output",
        same,
        _three_positions,
        **_ATTRS,
        mrope_layout=0,
        mrope_section=REQUIRED,
    ),
    _row(
        "GemmaRotaryEmbedding",
        "emb:f32 q q_rot k k_rot",
        "output1 output2",
        _gemma_shape,
        _gemma,
    ),
)

"""com.microsoft: attention in the forms that exporters and optimizers of other engines emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.attention import masked_softmax, merge_heads, rotary, split_heads
from tuili.ops.contrib_quantized import integer_to_float
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array, Dim


def _attend(
    q: Array, k: Array, v: Array, bias: Array | None, *, scale: float | None, causal: int,
    filler: float = -10000.0, softcap: float = 0.0,
) -> Array:  # fmt: skip
    """Attention over [B, heads, S, D]; queries stand at the end of the keys."""
    groups = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, groups, 1).astype(np.float32) for x in (k, v))
    factor = scale or 1 / np.sqrt(q.shape[-1])
    scores = np.matmul(q.astype(np.float32), k.swapaxes(-1, -2)) * np.float32(factor)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if causal:
        rows, columns = scores.shape[-2:]
        seen = np.tri(rows, columns, columns - rows, bool)
        scores = np.where(seen, scores, np.float32(filler))
    return np.matmul(masked_softmax(scores), v)


def _padding_bias(mask: Array | None, keys: int, filler: float) -> Array | None:
    """A mask of key lengths [B], of begins and ends [2B], or of keys [B, L] or [B, S, L]."""
    if mask is None:
        return None
    if mask.ndim == 1:
        # Lengths alone, or also (for [3B + 2]) cumulated ones; only the lengths matter here.
        kept = np.arange(keys) < mask.reshape(-1, 1)
        return np.where(kept, 0, np.float32(filler))[:, None, None]
    while mask.ndim < 4:
        mask = mask[:, None]
    return np.where(mask != 0, 0, np.float32(filler))


def _add(left: Array | None, right: Array | None) -> Array | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right


# -- Attention -----------------------------------------------------------------------------


def _sizes(width: int, attrs: Any) -> list[int]:
    return list(attrs("qkv_hidden_sizes") or [width // 3] * 3)


def _attention_shape(site: Site) -> list[Result]:
    batch, length, _ = site.need_rank(0, 3)
    width = site.shape(1)[1]
    heads = site.attr("num_heads")
    sizes: Sequence[Dim] = site.attr("qkv_hidden_sizes") or (width // 3,) * 3
    past = site.shape(4)[3] if site.has(4) else 0
    present = (2, batch, heads, length + past, sizes[1] // heads)
    return [(batch, length, sizes[2]), present]


def _attention(
    x: Array, weights: Array, bias: Array | None = None, mask: Array | None = None,
    past: Array | None = None, attention_bias: Array | None = None,
    past_length: Array | None = None, **attrs: Any,
) -> tuple[Array, Array]:  # fmt: skip
    packed = x @ weights
    packed = packed if bias is None else packed + bias
    return _self_attention(packed, mask, past, attention_bias, attrs)


def _self_attention(
    packed: Array, mask: Array | None, past: Array | None, bias: Array | None, attrs: dict[str, Any]
) -> tuple[Array, Array]:
    sizes = _sizes(packed.shape[-1], attrs.get)
    parts = np.split(packed, np.cumsum(sizes)[:-1].tolist(), -1)
    q, k, v = (split_heads(part, attrs["num_heads"]) for part in parts)
    if past is not None:
        k, v = np.concatenate([past[0], k], 2), np.concatenate([past[1], v], 2)
    filler = attrs["mask_filter_value"]
    total = _add(_padding_bias(mask, k.shape[2], filler), bias)
    causal = attrs["unidirectional"]
    y = _attend(q, k, v, total, scale=attrs["scale"], causal=causal, filler=filler)
    return merge_heads(y), np.stack([k, v])


def _q_attention_shape(site: Site) -> list[Result]:
    batch, length, _ = site.need_rank(0, 3)
    width, heads = site.shape(1)[1] // 3, site.attr("num_heads")
    past = site.shape(8)[3] if site.has(8) else 0
    return [(batch, length, width), (2, batch, heads, length + past, width // heads)]


def _q_attention(
    x: Array, weights: Array, bias: Array, x_scale: Array, w_scale: Array,
    mask: Array | None = None, x_zero: Array | None = None, w_zero: Array | None = None,
    past: Array | None = None, **attrs: Any,
) -> tuple[Array, Array]:  # fmt: skip
    packed = integer_to_float(x, weights, x_scale, w_scale, x_zero, w_zero, bias)
    return _self_attention(packed, mask, past, None, attrs)


# -- MultiHeadAttention --------------------------------------------------------------------


def _multi_head_shape(site: Site) -> list[Result]:
    heads = site.attr("num_heads")
    query = site.need_rank(0, 3, 5)
    if len(query) == 5:
        batch, length, _, _, size = query
        keys: Dim = length
        width = heads * size
    else:
        batch, length, width = query
        size = width // heads
        keys = _key_length(site, length)
    if site.has(2):
        value = site.shape(2)
        width = value[2] if len(value) == 3 else heads * value[3]
    keys = keys + (site.shape(6)[2] if site.has(6) else 0)
    return [
        (batch, length, width), (batch, heads, keys, size), (batch, heads, keys, width // heads),
        (batch, heads, length, keys),
    ]  # fmt: skip


def _key_length(site: Site, length: Dim) -> Dim:
    if not site.has(1):
        return length
    key = site.shape(1)
    return key[2] if len(key) == 4 else key[1]


def _multi_head(
    query: Array, key: Array | None = None, value: Array | None = None, bias: Array | None = None,
    padding: Array | None = None, attention_bias: Array | None = None,
    past_key: Array | None = None, past_value: Array | None = None,
    past_length: Array | None = None, indirection: Array | None = None, **attrs: Any,
) -> tuple[Array, ...]:  # fmt: skip
    heads = attrs["num_heads"]
    q, k, v = _unpacked(query, key, value)
    if bias is not None:
        ends = [q.shape[-1], 2 * q.shape[-1]]
        parts = np.split(bias, ends)
        q = q + parts[0]
        k, v = (x + part if x.ndim == 3 else x for x, part in zip((k, v), parts[1:], strict=True))
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    if past_key is not None and past_value is not None:
        k, v = np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)
    filler = attrs["mask_filter_value"]
    total = _add(_padding_bias(padding, k.shape[2], filler), attention_bias)
    causal = attrs["unidirectional"]
    y = _attend(q, k, v, total, scale=attrs["scale"], causal=causal, filler=filler)
    return merge_heads(y), k, v


def _unpacked(query: Array, key: Array | None, value: Array | None) -> tuple[Array, Array, Array]:
    """Queries, keys and values from one, two or three inputs."""
    if query.ndim == 5:
        parts = [query[:, :, :, i].reshape(*query.shape[:2], -1) for i in range(3)]
        return parts[0], parts[1], parts[2]
    assert key is not None
    if value is None:
        parts = [key[:, :, :, i].reshape(*key.shape[:2], -1) for i in range(2)]
        return query, parts[0], parts[1]
    return query, key, value


# -- GroupQueryAttention -------------------------------------------------------------------


def _group_query_shape(site: Site) -> list[Result]:
    batch, length, width = site.need_rank(0, 3)
    heads, shared = site.attr("num_heads"), site.attr("kv_num_heads")
    size = width // heads if site.has(1) else width // (heads + 2 * shared)
    total = site.contents.bind(site.node.input(6))
    keys: Dim = site.fresh(2, 1) if total is None else total[0]
    present = (batch, shared, keys, size)
    return [(batch, length, heads * size), present, present]


def _group_query(
    query: Array, key: Array | None, value: Array | None, past_key: Array | None,
    past_value: Array | None, seqlens: Array, total: Array, cos: Array | None = None,
    sin: Array | None = None, positions: Array | None = None, bias: Array | None = None,
    sink: Array | None = None, **attrs: Any,
) -> tuple[Array, Array, Array]:  # fmt: skip
    heads, shared = attrs["num_heads"], attrs["kv_num_heads"]
    if key is None or value is None:
        size = query.shape[-1] // (heads + 2 * shared)
        ends = [heads * size, (heads + shared) * size]
        query, key, value = np.split(query, ends, -1)
    q, k, v = split_heads(query, heads), split_heads(key, shared), split_heads(value, shared)
    length, keys = q.shape[2], int(np.ravel(total)[0])
    # Each row of the batch has its own number of keys; its new ones stand at the end of them.
    starts = seqlens.reshape(-1).astype(int) + 1 - length
    starts = np.maximum(starts, 0)
    places = starts[:, None] + np.arange(length)
    if attrs["do_rotary"] and cos is not None and sin is not None:
        where = places if positions is None else positions
        turn: dict[str, Any] = {
            "interleaved": attrs["rotary_interleaved"],
            "num_heads": None,
            "rotary_embedding_dim": 2 * cos.shape[-1],
        }
        q, k = (rotary(x, cos, sin, where, **turn) for x in (q, k))
    all_k = _cached(past_key, k, starts, keys)
    all_v = _cached(past_value, v, starts, keys)
    distance = places[:, None, :, None] - np.arange(keys)
    allowed = distance >= 0
    if attrs["local_window_size"] > 0:
        allowed &= distance < attrs["local_window_size"]
    mask = np.where(allowed, np.float32(0), np.float32(-np.inf))
    mask = mask if bias is None else mask + bias[..., :keys]
    y = _attend(q, all_k, all_v, mask, scale=attrs["scale"], causal=0, softcap=attrs["softcap"])
    return merge_heads(y), all_k, all_v


def _cached(past: Array | None, new: Array, starts: Array, keys: int) -> Array:
    """Keys or values of all positions: the old ones, then the new ones of each row."""
    batch, heads, length, size = new.shape
    result = np.zeros((batch, heads, keys, size), new.dtype)
    for row, start in enumerate(starts):
        if past is not None:
            result[row, :, :start] = past[row, :, :start]
        end = min(start + length, keys)
        result[row, :, start:end] = new[row, :, : end - start]
    return result


# -- rotary --------------------------------------------------------------------------------


def _rotary(
    x: Array, position_ids: Array, cos: Array, sin: Array, *, interleaved: int,
    is_packed_batching: int, num_heads: int, rotary_embedding_dim: int, scale: float,
) -> Array:  # fmt: skip
    length = x.shape[-2] if x.ndim == 4 else x.shape[1]
    places = position_ids
    if position_ids.ndim == 1:
        places = np.broadcast_to(position_ids + np.arange(length), (x.shape[0], length))
    width = rotary_embedding_dim or 2 * cos.shape[-1]
    heads = num_heads or (x.shape[-1] // width if x.ndim == 3 else None)
    return rotary(
        x, cos, sin, places, interleaved=interleaved, num_heads=heads, rotary_embedding_dim=width
    )


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_HEADS = {"num_heads": REQUIRED, "scale": None}
_MASKED = {**_HEADS, "mask_filter_value": -10000.0, "unidirectional": 0}

ROWS = (
    _row(
        "Attention",
        "input weights bias? mask_index?:i32 past? attention_bias? past_sequence_length?:i32",
        "output present",
        _attention_shape,
        _attention,
        **_MASKED,
        do_rotary=0,
        past_present_share_buffer=0,
        qkv_hidden_sizes=None,
        rotary_embedding_dim=0,
    ),
    _row(
        "QAttention",
        "input:A weight:B bias:F input_scale:F weight_scale:F mask_index?:i32"
        " input_zero_point?:A weight_zero_point?:B past?:F",
        "output:F present:F",
        _q_attention_shape,
        _q_attention,
        **_MASKED,
        do_rotary=0,
        past_present_share_buffer=0,
    ),
    _row(
        "MultiHeadAttention",
        "query key? value? bias? key_padding_mask?:i32 attention_bias? past_key? past_value?"
        " past_sequence_length?:i32 cache_indirection?:i32",
        "output present_key present_value qk",
        _multi_head_shape,
        _multi_head,
        **_MASKED,
    ),
    _row(
        "GroupQueryAttention",
        "query key? value? past_key? past_value? seqlens_k:i32 total_sequence_length:i32"
        " cos_cache? sin_cache? position_ids?:i64 attention_bias? head_sink?",
        "output present_key present_value",
        _group_query_shape,
        _group_query,
        **_HEADS,
        do_rotary=0,
        kv_num_heads=REQUIRED,
        local_window_size=-1,
        rotary_interleaved=0,
        smooth_softmax=0,
        softcap=0.0,
    ),
    _row(
        "RotaryEmbedding",
        "input position_ids:i64 cos_cache sin_cache",
        "output",
        same,
        _rotary,
        interleaved=0,
        is_packed_batching=0,
        num_heads=0,
        rotary_embedding_dim=0,
        scale=1.0,
    ),
)

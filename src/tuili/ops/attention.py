"""Attention and what comes with it: Attention, FlexAttention, LinearAttention, RotaryEmbedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ir import Graph, TensorType
from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType


def split_heads(x: Array, heads: int | None) -> Array:
    """[B, S, heads * D] as [B, heads, S, D]; rank 4 stays."""
    if x.ndim == 4 or heads is None:
        return x
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """[B, heads, S, D] as [B, S, heads * D]."""
    batch, heads, length, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * size)


def masked_softmax(scores: Array) -> Array:
    """Softmax along the last axis; a row of -inf only becomes zeros."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = powers.sum(-1, keepdims=True)
    return powers / np.where(total == 0, 1, total)


def _shared(x: Array, heads: int) -> Array:
    """Key or value heads repeated for the query heads that share them."""
    return np.repeat(x, heads // x.shape[1], 1) if x.shape[1] != heads else x


def _bias(
    shape: tuple[int, int],
    mask: Array | None,
    past: int,
    lengths: Array | None,
    attrs: dict[str, Any],
) -> Array:
    """What is added to the scores: the mask, the causal frontier, the window and the padding."""
    rows, columns = shape
    bias = np.zeros(shape, np.float32)
    if mask is not None:
        missing = columns - mask.shape[-1]
        widths = [(0, 0)] * (mask.ndim - 1) + [(0, max(missing, 0))]
        if mask.dtype == np.bool_:
            bias = bias + np.where(np.pad(mask, widths), np.float32(0), np.float32(-np.inf))
        else:
            bias = bias + np.pad(mask.astype(np.float32), widths, constant_values=-np.inf)
    offset: Any = past
    if lengths is not None:
        offset = lengths.reshape(-1, 1, 1, 1) - rows
        bias = bias + np.where(np.arange(columns) < lengths.reshape(-1, 1, 1, 1), 0.0, -np.inf)
    distance = np.arange(rows)[:, None] + offset - np.arange(columns)
    allowed = np.ones(distance.shape, bool)
    if attrs["is_causal"]:
        allowed &= distance >= 0
    if attrs["left_window_size"] >= 0:
        allowed &= distance <= attrs["left_window_size"]
    if attrs["right_window_size"] >= 0:
        allowed &= -distance <= attrs["right_window_size"]
    return bias + np.where(allowed, np.float32(0), np.float32(-np.inf))


def _attention(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    **attrs: Any,
) -> tuple[Array, Array, Array, Array]:
    kind = Q.dtype
    q, k, v = (
        split_heads(x, attrs[name])
        for x, name in ((Q, "q_num_heads"), (K, "kv_num_heads"), (V, "kv_num_heads"))
    )
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)
    root = kind.type(np.sqrt(attrs["scale"] or 1 / np.sqrt(q.shape[-1])))
    keys = _shared(k, q.shape[1]) * root
    scores = _rounded_product(q * root, keys.swapaxes(-1, -2), kind)
    bias = _bias((q.shape[2], k.shape[2]), attn_mask, past, nonpad_kv_seqlen, attrs).astype(kind)
    raw = scores
    if attrs["softcap"]:
        cap = kind.type(attrs["softcap"])
        scores = np.tanh(scores / cap).astype(kind) * cap
    capped = scores
    biased = scores + bias
    precision = attrs["softmax_precision"]
    wide = biased.astype(precision.numpy if isinstance(precision, DType) else kind)
    odds = masked_softmax(wide)
    odds = np.where(np.isneginf(bias.astype(np.float32).max(-1, keepdims=True)), 0, odds)
    odds = odds.astype(kind)
    y = _rounded_product(odds, _shared(v, q.shape[1]), V.dtype).astype(kind)
    shown = (raw, capped, biased, odds)[attrs["qk_matmul_output_mode"]]
    return (merge_heads(y) if Q.ndim == 3 else y), k, v, shown


def _at_least_f32(kind: Any) -> Any:
    return kind if kind.itemsize >= 4 else np.float32


def _rounded_product(left: Array, right: Array, kind: Any) -> Array:
    wide = _at_least_f32(kind)
    return np.matmul(left.astype(wide), right.astype(wide)).astype(kind)


def _heads(site: Site, index: int, name: str) -> tuple[Dim, Dim, Dim, Dim]:
    shape = site.need_rank(index, 3, 4)
    if len(shape) == 4:
        batch, heads, length, size = shape
        return batch, heads, length, size
    heads = site.attr(name)
    if not heads:
        site.fail(f"input {index} has rank 3, so attribute {name!r} is required")
    site.divides(heads, shape[2], f"the width of input {index}")
    return shape[0], heads, shape[1], shape[2] // heads


def shared_heads(site: Site, heads: Dim, kv_heads: Dim) -> None:
    """Each head of keys belongs to as many of queries."""
    if isinstance(kv_heads, int) and kv_heads:
        site.divides(kv_heads, heads, "the number of heads of queries")
    else:
        site.same(kv_heads, heads, "as many heads of keys as of queries")


def past_length(site: Site, index: int, sizes: tuple[Dim, Dim, Dim, Dim]) -> Dim:
    """How many keys inputs `index` and `index + 1` hold: [B, heads, P, D] of the given sizes."""
    if not site.has(index):
        return 0
    batch, heads, size, value_size = sizes
    past = site.need_rank(index, 4)[2]
    site.same_shape(site.shape(index), (batch, heads, past, size), "old keys for the new ones")
    if site.has(index + 1):
        wanted = (batch, heads, past, value_size)
        site.same_shape(site.shape(index + 1), wanted, "old values for the new ones")
    return past


def _attention_shape(site: Site) -> list[Result]:
    batch, heads, rows, depth = _heads(site, 0, "q_num_heads")
    kv = _heads(site, 1, "kv_num_heads")
    _, kv_heads, keys, size = kv
    value_size = _heads(site, 2, "kv_num_heads")[3]
    site.same_shape(kv, (batch, kv_heads, keys, depth), "keys for the queries")
    wanted = (batch, kv_heads, keys, value_size)
    site.same_shape(_heads(site, 2, "kv_num_heads"), wanted, "values for the keys")
    shared_heads(site, heads, kv_heads)
    total = keys + past_length(site, 4, (batch, kv_heads, size, value_size))
    if site.has(3):
        mask = site.shape(3)
        site.broadcasts_to(mask[:-1], (batch, heads, rows), "the mask for the scores")
        site.at_least(total, mask[-1], "keys for the mask")
    if site.has(6):
        site.same_shape(site.shape(6), (batch,), "a length a row of the batch")
    y: Sequence[Dim] = (batch, heads, rows, value_size)
    if site.rank(0) == 3:
        y = (batch, rows, heads * value_size)
    return [
        y,
        (batch, kv_heads, total, size),
        (batch, kv_heads, total, value_size),
        (batch, heads, rows, total),
    ]


# -- FlexAttention -------------------------------------------------------------------------


def _flex_precision(attrs: dict[str, Any], kind: Any) -> Any:
    precision = attrs["softmax_precision"]
    if isinstance(precision, DType):
        return precision.numpy
    return np.dtype(np.float64 if kind == np.float64 else np.float32)


def _flex_attention(Q: Array, K: Array, V: Array, **attrs: Any) -> Array:
    kind = _flex_precision(attrs, Q.dtype)
    scale = attrs["scale"] or 1 / np.sqrt(Q.shape[-1])
    keys = _shared(K, Q.shape[1]).swapaxes(-1, -2)
    scores = np.matmul(Q.astype(kind), keys.astype(kind)) * kind.type(scale)
    if attrs["score_mod"] is not None:
        scores = attrs["score_mod"](scores)[0]
    odds = masked_softmax(scores)
    if attrs["prob_mod"] is not None:
        odds = attrs["prob_mod"](odds)[0]
    return np.matmul(odds, _shared(V, Q.shape[1]).astype(kind)).astype(Q.dtype)


def _flex_shape(site: Site) -> list[Result]:
    q, k, v = site.need_rank(0, 4), site.need_rank(1, 4), site.need_rank(2, 4)
    precision = site.attr("softmax_precision")
    wide = DType.F64 if site.dtype(0) is DType.F64 else DType.F32
    dtype = precision if isinstance(precision, DType) else wide
    scores = TensorType(dtype, (q[0], q[1], q[2], k[2]))
    for name in ("score_mod", "prob_mod"):
        body = site.attr(name)
        if isinstance(body, Graph):
            site.body(body, [scores])
    return [(*q[:3], v[3])]


# -- LinearAttention -----------------------------------------------------------------------


def _linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    chunk_size: int,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float,
    update_rule: str,
) -> tuple[Array, Array]:
    q = split_heads(query, q_num_heads).astype(np.float32)
    k = split_heads(key, kv_num_heads).astype(np.float32)
    v = split_heads(value, kv_num_heads).astype(np.float32)
    batch, _, length, size = k.shape
    fade = None if decay is None else split_heads(decay, kv_num_heads).astype(np.float32)
    rate = None if beta is None else split_heads(beta, beta.shape[-1]).astype(np.float32)
    state = np.zeros((batch, kv_num_heads, size, v.shape[-1]), np.float32)
    if past_state is not None:
        state = past_state.astype(np.float32)
    factor = scale or 1 / np.sqrt(size)
    outputs: list[Array] = []
    for t in range(length):
        if "gated" in update_rule and fade is not None:
            state = state * np.exp(fade[:, :, t, :, None])
        new = v[:, :, t]
        if "delta" in update_rule and rate is not None:
            new = rate[:, :, t] * (new - np.einsum("bhdm,bhd->bhm", state, k[:, :, t]))
        state = state + k[:, :, t, :, None] * new[:, :, None, :]
        read = np.repeat(state, q_num_heads // kv_num_heads, 1)
        outputs.append(factor * np.einsum("bhd,bhdm->bhm", q[:, :, t], read))
    y = merge_heads(np.stack(outputs, 2)).astype(query.dtype)
    return y, state.astype(query.dtype if past_state is None else past_state.dtype)


def _linear_shape(site: Site) -> list[Result]:
    q, k, v = site.need_rank(0, 3), site.need_rank(1, 3), site.need_rank(2, 3)
    heads, shared = site.attr("q_num_heads"), site.attr("kv_num_heads")
    size = v[2] // shared
    state = (q[0], shared, k[2] // shared, size)
    kind = site.dtype(3) if site.has(3) else site.dtype(0)
    return [(q[0], q[1], heads * size), TensorType(kind, state)]


# -- rotary --------------------------------------------------------------------------------


def _rotary_shape(site: Site) -> list[Result]:
    batch, _, length, size = _heads(site, 0, "num_heads")
    width = site.attr("rotary_embedding_dim") or size
    turned_by(site, (1, 2), width)
    site.at_least(size, width, "elements of a head for those that are turned")
    if site.has(3):
        site.broadcasts_to(site.shape(3), (batch, length), "positions for the tokens")
    else:
        for index in (1, 2):
            places = site.need_rank(index, 3)[:2]
            site.broadcasts_to(places, (batch, length), "angles for the tokens")
    return [site.shape(0)]


def turned_by(site: Site, caches: tuple[int, int], width: Dim) -> None:
    """Both caches have an angle for each pair of elements."""
    for index in caches:
        site.same(site.shape(index)[-1] * 2, width, "twice the angles for the elements turned")


def rotary(
    X: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int,
    num_heads: int | None,
    rotary_embedding_dim: int,
) -> Array:
    """Pairs of elements turned by an angle that grows with the position (RotaryEmbedding-23)."""
    x = split_heads(X, num_heads)
    cos, sin = cos_cache, sin_cache
    if position_ids is not None:
        cos, sin = cos[position_ids], sin[position_ids]
    cos, sin = cos[:, None], sin[:, None]
    width = rotary_embedding_dim or x.shape[-1]
    turned = x[..., :width].copy()
    if interleaved:
        left, right = (slice(0, None, 2), slice(1, None, 2))
    else:
        left, right = slice(0, width // 2), slice(width // 2, width)
    a, b = turned[..., left].copy(), turned[..., right].copy()
    turned[..., left], turned[..., right] = cos * a - sin * b, sin * a + cos * b
    y = np.concatenate([turned, x[..., width:]], -1)
    return merge_heads(y) if X.ndim == 3 else y


_WINDOW = {"is_causal": 0, "left_window_size": -1, "right_window_size": -1}

ROWS = (
    op(
        "Attention",
        "Q:T K:T V:V attn_mask?:U past_key?:T past_value?:V nonpad_kv_seqlen?:i64",
        "Y:T present_key:T present_value:V qk_matmul_output:T",
        _attention_shape,
        _attention,
        attrs={
            **_WINDOW,
            "kv_num_heads": None,
            "q_num_heads": None,
            "qk_matmul_output_mode": 0,
            "scale": None,
            "softcap": 0.0,
            "softmax_precision": None,
        },
    ),
    op(
        "ai.onnx.preview::FlexAttention",
        "Q K V",
        "Y",
        _flex_shape,
        _flex_attention,
        attrs={"prob_mod": None, "scale": None, "score_mod": None, "softmax_precision": None},
    ),
    op(
        "LinearAttention",
        "query key value past_state?:S decay? beta?",
        "output present_state:any",
        _linear_shape,
        _linear_attention,
        attrs={
            "chunk_size": 64,
            "kv_num_heads": REQUIRED,
            "q_num_heads": REQUIRED,
            "scale": 0.0,
            "update_rule": "gated_delta",
        },
    ),
    op(
        "RotaryEmbedding",
        "X cos_cache sin_cache position_ids?:i64",
        "Y",
        _rotary_shape,
        rotary,
        attrs={"interleaved": 0, "num_heads": None, "rotary_embedding_dim": 0},
    ),
)

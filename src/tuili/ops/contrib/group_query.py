"""com.microsoft: attention of language models with a cache: GroupQueryAttention, SparseAttention.

Each row of the batch has its own number of keys T. A step brings S tokens a row, of which the
first Q are real; they stand at the places T - Q to T - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.attention import merge_heads, past_length, rotary, split_heads
from tuili.ops.contrib.attending import attend
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType, dim_max, numel

_MASKED = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class _Step:
    """Where the tokens of a step stand: [B] starts, counts of real ones, and lengths after it."""

    starts: Array
    counts: Array
    lengths: Array
    places: Array  # [B, S]
    keys: int  # positions that the scores have a column for

    @classmethod
    def of(cls, lengths: Array, counts: Array | None, length: int, total: Array) -> _Step:
        lengths = lengths.reshape(-1).astype(np.int64)
        counts = np.minimum(length, lengths) if counts is None else counts.reshape(-1)
        counts = counts.astype(np.int64)
        starts = lengths - counts
        places = starts[:, None] + np.arange(length)
        return cls(starts, counts, lengths, places, int(np.ravel(total)[0]))


# -- the cache -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Store:
    """How numbers are kept in the cache: as they are, or as codes of `bits` with a scale."""

    kind: str
    bits: int
    scale: Array | None

    def read(self, codes: Array) -> Array:
        if self.kind == "NONE":
            return codes
        if codes.dtype == np.uint8 and self.bits == 4:
            # Two codes a byte, the low bits first, 8 stands for zero.
            pair = np.stack([codes & 15, codes >> 4], -1)
            codes = pair.reshape(*codes.shape[:-1], -1).astype(np.int16) - 8
        return codes.astype(np.float32) * self._factor(codes.shape)

    def write(self, x: Array, like: Array) -> Array:
        if self.kind == "NONE":
            return x
        x = x.astype(np.float32) / self._factor(x.shape)
        if like.dtype == np.uint8 and self.bits == 4:
            codes = (np.clip(np.rint(x), -8, 7) + 8).astype(np.uint8)
            return codes[..., ::2] | codes[..., 1::2] << 4
        if like.dtype == np.int8:
            return np.clip(np.rint(x), -128, 127).astype(np.int8)
        return x.astype(like.dtype)

    def _factor(self, shape: tuple[int, ...]) -> Array:
        assert self.scale is not None
        scale = self.scale.astype(np.float32)
        if scale.size == 1:
            return scale.reshape(1, 1, 1, 1)
        return scale.reshape(1, shape[1], 1, -1)


def _grown(past: Array | None, new: Array, step: _Step, store: _Store) -> tuple[Array, Array]:
    """The cache with the step's tokens, and what it holds as numbers."""
    like = new if past is None else past
    codes = store.write(new, like)
    room = step.keys if past is None else max(past.shape[2], step.keys)
    cache = np.zeros((*new.shape[:2], room, codes.shape[-1]), codes.dtype)
    if past is not None:
        cache[:, :, : past.shape[2]] = past
    for row, (start, count) in enumerate(zip(step.starts, step.counts, strict=True)):
        end = min(start + count, room)
        cache[row, :, start:end] = codes[row, :, : end - start]
    return cache, store.read(cache)


def _resident(tokens: Array, room: int, window: int) -> Array:
    """How many positions a windowed cache keeps: it drops `room - window + 1` of them at once."""
    chunk = room - window + 1
    dropped = chunk * np.maximum(-(-(tokens - room) // chunk), 0)
    return tokens - dropped


def _windowed(
    past: Array, new: Array, step: _Step, store: _Store, window: int
) -> tuple[Array, Array]:
    """The windowed cache after the step, and the numbers of all positions; dropped ones are 0."""
    room = past.shape[2]
    codes = store.write(new, past)
    batch, heads, _, size = codes.shape
    whole = np.zeros((batch, heads, int(step.lengths.max()), size), codes.dtype)
    cache = past.copy()
    kept = _resident(step.starts, room, window)
    left = _resident(step.lengths, room, window)
    for row, (start, count) in enumerate(zip(step.starts, step.counts, strict=True)):
        end = start + count
        whole[row, :, start - kept[row] : start] = past[row, :, : kept[row]]
        whole[row, :, start:end] = codes[row, :, :count]
        if count:
            cache[row, :, : left[row]] = whole[row, :, end - left[row] : end]
    return cache, store.read(whole)


# -- GroupQueryAttention -------------------------------------------------------------------


def _group_query_shape(site: Site) -> list[Result]:
    batch, length, width = site.need_rank(0, 3)
    heads, shared = site.attr("num_heads"), site.attr("kv_num_heads")
    size = width // heads if site.has(1) else width // (heads + 2 * shared)
    total = site.contents.bind(site.node.input(6))
    keys: Dim = site.fresh(2, 1) if total is None else total[0]
    kind = site.dtype(3) if site.has(3) else site.dtype(0)
    kept = keys
    _check_group(site, (batch, length, size), keys)
    if site.has(3):
        past = site.shape(3)[2]
        kept = past if site.attr("sliding_window_cache") else dim_max(past, keys)
    bits = site.attr("kv_cache_bit_width")
    stored = size // 2 if kind is DType.U8 and bits == 4 else size
    present = TensorType(kind, (batch, shared, kept, stored))
    results: list[Result] = [(batch, length, heads * size), present, present]
    return [*results, (batch, heads, length, keys)]


def _check_group(site: Site, queries: tuple[Dim, Dim, Dim], keys: Dim) -> None:
    """Keys, values, caches, lengths and angles for queries of [B, S] and a head of D."""
    batch, length, size = queries
    heads, shared = site.attr("num_heads"), site.attr("kv_num_heads")
    if isinstance(heads, int) and isinstance(shared, int):
        site.divides(shared, heads, "the number of heads of queries")
    for index, what in ((1, "keys"), (2, "values")):
        if site.has(index):
            wanted = (batch, length, shared * size)
            site.same_shape(site.shape(index), wanted, f"{what} for the queries")
    if site.has(3) and site.attr("kv_cache_bit_width") == 0:
        past_length(site, 3, (batch, shared, size, size))
    site.same(numel(site.shape(5)), batch, "a length a row of the batch")
    if site.attr("do_rotary") and site.has(7) and site.has(8):
        angles = site.need_rank(7, 2)
        site.same_shape(site.shape(8), angles, "sines for the cosines")
        site.at_least(size, angles[1] * 2, "elements of a head for those that are turned")
    if site.has(10):
        bias = site.need_rank(10, 4)
        site.broadcasts_to(bias[:3], (batch, heads, length), "what is added to the scores")
        site.at_least(bias[3], keys, "what is added to the scores")


def _parts(
    query: Array, key: Array | None, value: Array | None, heads: int, shared: int
) -> tuple[Array, Array, Array]:
    if key is None or value is None:
        size = query.shape[-1] // (heads + 2 * shared)
        ends = [heads * size, (heads + shared) * size]
        query, key, value = np.split(query, ends, -1)
    return split_heads(query, heads), split_heads(key, shared), split_heads(value, shared)


def _normed(x: Array, weight: Array | None, epsilon: float) -> Array:
    """RMS normalisation of each head."""
    if weight is None:
        return x
    wide = x.astype(np.float32)
    root = np.sqrt(np.square(wide).mean(-1, keepdims=True) + np.float32(epsilon))
    return (wide / root * weight.astype(np.float32)).astype(x.dtype)


def _group_query(
    query: Array, key: Array | None, value: Array | None, past_key: Array | None,
    past_value: Array | None, seqlens: Array, total: Array, cos: Array | None = None,
    sin: Array | None = None, positions: Array | None = None, bias: Array | None = None,
    sink: Array | None = None, k_scale: Array | None = None, v_scale: Array | None = None,
    q_weight: Array | None = None, k_weight: Array | None = None, counts: Array | None = None,
    **attrs: Any,
) -> tuple[Array, ...]:  # fmt: skip
    q, k, v = _parts(query, key, value, attrs["num_heads"], attrs["kv_num_heads"])
    epsilon = attrs["qk_norm_epsilon"]
    q = _normed(q, q_weight, attrs["q_norm_epsilon"] or epsilon)
    k = _normed(k, k_weight, attrs["k_norm_epsilon"] or epsilon)
    step = _Step.of(seqlens.reshape(-1) + 1, counts, q.shape[2], total)
    if attrs["do_rotary"] and cos is not None and sin is not None:
        places = _angles_of(step, positions, first=counts is None and step.keys == q.shape[2])
        q, k = (_turned(x, cos, sin, places, attrs["rotary_interleaved"]) for x in (q, k))
    bits = attrs["kv_cache_bit_width"]
    stores = (
        _Store(attrs["k_quant_type"], bits, k_scale),
        _Store(attrs["v_quant_type"], bits, v_scale),
    )
    window = attrs["local_window_size"]
    if attrs["sliding_window_cache"] and past_key is not None and past_value is not None:
        cache_k, all_k = _windowed(past_key, k, step, stores[0], window)
        cache_v, all_v = _windowed(past_value, v, step, stores[1], window)
    else:
        cache_k, all_k = _grown(past_key, k, step, stores[0])
        cache_v, all_v = _grown(past_value, v, step, stores[1])
    all_k, all_v = all_k[:, :, : step.keys], all_v[:, :, : step.keys]
    if attrs["smooth_softmax"] > 0 and sink is None:
        sink = np.zeros(attrs["num_heads"], np.float32)
    mask = _mask(step, all_k.shape[2], attrs["causal"], window)
    mask = mask if bias is None else mask + bias[..., : mask.shape[-1]]
    y, scores, odds = attend(
        q, all_k, all_v, mask, scale=attrs["scale"], softcap=attrs["softcap"], sink=sink
    )
    shown = odds if attrs["qk_output"] == 2 else np.where(np.isneginf(scores), 0, scores)
    return merge_heads(y), cache_k, cache_v, shown.astype(query.dtype)


def _angles_of(step: _Step, positions: Array | None, *, first: bool) -> Array:
    """The positions that turn the tokens; of a first prompt only the first number is read."""
    if positions is None:
        return step.places
    if first:
        return np.ravel(positions)[0] + np.broadcast_to(
            np.arange(step.places.shape[1]), step.places.shape
        )
    return positions.reshape(step.places.shape)


def _turned(x: Array, cos: Array, sin: Array, places: Array, interleaved: int) -> Array:
    places = np.clip(places, 0, len(cos) - 1)  # those of padding mean nothing
    return rotary(
        x, cos, sin, places, interleaved=interleaved, num_heads=None,
        rotary_embedding_dim=2 * cos.shape[-1],
    )  # fmt: skip


def _mask(step: _Step, keys: int, causal: int, window: int) -> Array:
    """[B, 1, S, keys]: 0 for keys that a token sees."""
    place = np.arange(keys)
    seen = np.broadcast_to(place < step.lengths[:, None, None], (*step.places.shape, keys))
    distance = step.places[:, :, None] - place
    if causal:
        seen = seen & (distance >= 0)
    if window > 0:
        seen = seen & (distance < window)
    return np.where(seen, np.float32(0), _MASKED)[:, None]


# -- SparseAttention -----------------------------------------------------------------------


def _sparse(
    query: Array, key: Array | None, value: Array | None, past_key: Array, past_value: Array,
    row_starts: Array, columns: Array, total: Array, lengths: Array, cos: Array | None = None,
    sin: Array | None = None, **attrs: Any,
) -> tuple[Array, ...]:  # fmt: skip
    """Blocks of keys that a block of queries sees; the layouts go round the heads."""
    heads = attrs["num_heads"]
    q, k, v = _parts(query, key, value, heads, attrs["kv_num_heads"])
    step = _Step.of(lengths, None, q.shape[2], total)
    if attrs["do_rotary"] and cos is not None and sin is not None:
        q, k = (_turned(x, cos, sin, step.places, attrs["rotary_interleaved"]) for x in (q, k))
    store = _Store("NONE", 0, None)
    cache_k, all_k = _grown(past_key, k, step, store)
    cache_v, all_v = _grown(past_value, v, step, store)
    blocks = _blocks(row_starts, columns, row_starts.shape[1] - 1)
    place = np.arange(step.keys)
    size = attrs["sparse_block_size"]
    rows = np.clip(step.places // size, 0, blocks.shape[1] - 1)
    kept = blocks[:, rows][..., place // size]  # [layouts, B, S, keys]
    layouts = np.arange(heads) % len(blocks)
    bias = np.where(kept[layouts].swapaxes(0, 1), np.float32(0), _MASKED)
    bias = bias + _mask(step, step.keys, 1, 0)
    keys = slice(step.keys)
    y, _, _ = attend(q, all_k[:, :, keys], all_v[:, :, keys], bias, scale=attrs["scale"])
    return merge_heads(y), cache_k, cache_v


def _blocks(row_starts: Array, columns: Array, rows: int) -> Array:
    """Which blocks of keys each block of queries sees, out of compressed rows."""
    seen = np.zeros((len(row_starts), rows, rows), bool)
    for layout, starts in enumerate(row_starts):
        for row in range(rows):
            seen[layout, row, columns[layout, starts[row] : starts[row + 1]]] = True
    return seen


def _sparse_shape(site: Site) -> list[Result]:
    batch, length, width = site.need_rank(0, 3)
    heads, shared = site.attr("num_heads"), site.attr("kv_num_heads")
    size = width // heads if site.has(1) else width // (heads + 2 * shared)
    return [(batch, length, heads * size), site.shape(3), site.shape(4)]


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_HEADS = {
    "num_heads": REQUIRED,
    "kv_num_heads": REQUIRED,
    "scale": None,
    "do_rotary": 0,
    "rotary_interleaved": 0,
}

ROWS = (
    _row(
        "GroupQueryAttention",
        "query key? value? past_key?:C past_value?:C seqlens_k:i32 total_sequence_length:i32"
        " cos_cache? sin_cache? position_ids?:i64 attention_bias? head_sink? k_scale?:f32"
        " v_scale?:f32 q_norm_weight? k_norm_weight? query_seqlens?:i32",
        "output present_key:any present_value:any output_qk",
        _group_query_shape,
        _group_query,
        **_HEADS,
        causal=1,
        k_norm_epsilon=None,
        k_quant_type="NONE",
        kv_cache_bit_width=0,
        local_window_size=-1,
        q_norm_epsilon=None,
        qk_norm_epsilon=1e-6,
        qk_output=0,
        sliding_window_cache=0,
        smooth_softmax=0,
        softcap=0.0,
        v_quant_type="NONE",
    ),
    _row(
        "SparseAttention",
        "query key? value? past_key past_value block_row_indices:i32 block_col_indices:i32"
        " total_sequence_length:i32 key_total_sequence_lengths:i32 cos_cache? sin_cache?",
        "output present_key present_value",
        _sparse_shape,
        _sparse,
        **_HEADS,
        sparse_block_size=REQUIRED,
    ),
)

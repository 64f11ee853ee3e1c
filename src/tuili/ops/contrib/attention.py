"""com.microsoft: attention in the forms that exporters and optimizers of other engines emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.attention import merge_heads, past_length, rotary, split_heads
from tuili.ops.contrib.attending import added, attend, causal_bias, extended, padding_bias
from tuili.ops.contrib.quantized import integer_to_float
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim

# -- Attention -----------------------------------------------------------------------------


def _sizes(width: int, attrs: Any) -> list[int]:
    return list(attrs("qkv_hidden_sizes") or [width // 3] * 3)


def _attention_shape(site: Site) -> list[Result]:
    batch, length, depth = site.need_rank(0, 3)
    rows, width = site.need_rank(1, 2)
    heads = site.attr("num_heads")
    sizes: Sequence[Dim] = site.attr("qkv_hidden_sizes") or (width // 3,) * 3
    site.same(rows, depth, "the width of the input against the weights")
    site.same(sizes[0] + sizes[1] + sizes[2], width, "queries, keys and values of the weights")
    if site.has(2):
        site.same_shape(site.shape(2), (width,), "the bias for the weights")
    keys = length
    if site.has(4) and not site.attr("past_present_share_buffer"):
        past = site.need_rank(4, 5)
        wanted = (2, batch, heads, past[3], sizes[1] // heads)
        site.same_shape(past, wanted, "old keys and values for the new ones")
        keys = length + past[3]
    if not site.attr("past_present_share_buffer"):
        _check_masks(site, 3, 5, (batch, heads, length, keys))
    return [(batch, length, sizes[2]), _present(site, 4, batch, length, sizes[1] // heads)]


def _check_masks(site: Site, mask: int, bias: int, scores: tuple[Dim, Dim, Dim, Dim]) -> None:
    """The inputs of these numbers are flags or lengths of keys, and what is added to scores."""
    batch, _, rows, keys = scores
    if site.has(mask):
        shape = site.need_rank(mask, 1, 2, 3, 4)
        what = "the mask for the keys"
        if len(shape) == 2:
            site.broadcasts_to(shape, (batch, keys), what)
        elif len(shape) == 3:
            site.broadcasts_to(shape, (batch, rows, keys), what)
        elif len(shape) == 4:
            site.broadcasts_to(shape[:1], (batch,), what)
            site.at_least(shape[2], keys, what)
            site.at_least(shape[3], keys, what)
    if site.has(bias):
        site.broadcasts_to(site.shape(bias), scores, "what is added to the scores")


def _present(site: Site, index: int, batch: Dim, length: Dim, size: Dim) -> Result:
    """The shape of keys and values in one tensor; a shared buffer keeps its own."""
    shared = site.attr("past_present_share_buffer")
    past = site.shape(index)[3] if site.has(index) else 0
    return (2, batch, site.attr("num_heads"), past if shared else length + past, size)


def _attention(
    x: Array, weights: Array, bias: Array | None = None, mask: Array | None = None,
    past: Array | None = None, attention_bias: Array | None = None,
    past_length: Array | None = None, **attrs: Any,
) -> tuple[Array, Array]:  # fmt: skip
    packed = x @ weights
    packed = packed if bias is None else packed + bias
    used = past_length if attrs["past_present_share_buffer"] else None
    return _self_attention(packed, mask, past, attention_bias, used, attrs)


def _self_attention(
    packed: Array, mask: Array | None, past: Array | None, bias: Array | None, used: Array | None,
    attrs: dict[str, Any],
) -> tuple[Array, Array]:  # fmt: skip
    sizes = _sizes(packed.shape[-1], attrs.get)
    parts = np.split(packed, np.cumsum(sizes)[:-1].tolist(), -1)
    q, k, v = (split_heads(part, attrs["num_heads"]) for part in parts)
    count = _past_length(None if past is None else past[0], used)
    if attrs["do_rotary"]:
        q, k = (_turned(x, count, attrs["rotary_embedding_dim"]) for x in (q, k))
    old_k, old_v = (None, None) if past is None else past
    k, cache_k = extended(old_k, k, used, None)
    v, cache_v = extended(old_v, v, used, None)
    shape = (q.shape[0], q.shape[2], k.shape[2])
    total = added(padding_bias(mask, shape, count, attrs["mask_filter_value"]), bias)
    if attrs["unidirectional"]:
        total = added(total, causal_bias(*shape[1:]))
    y, _, _ = attend(q, k, v, total, scale=attrs["scale"])
    # Keys and values of different sizes have no common tensor; nobody reads it then.
    present = np.stack([cache_k, cache_v]) if cache_k.shape == cache_v.shape else cache_k[None]
    return merge_heads(y), present


def _past_length(past: Array | None, used: Array | None) -> int:
    if past is None:
        return 0
    return past.shape[2] if used is None else int(np.ravel(used)[0])


def _turned(x: Array, start: int, width: int) -> Array:
    """Rotary embedding with the usual angles: 10000 ** (-2 i / width)."""
    width = width or x.shape[-1]
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.outer(np.arange(start, start + x.shape[2]), rates).astype(x.dtype)
    cos, sin = np.cos(angles)[None], np.sin(angles)[None]
    return rotary(x, cos, sin, interleaved=0, num_heads=None, rotary_embedding_dim=width)


def _q_attention_shape(site: Site) -> list[Result]:
    batch, length, _ = site.need_rank(0, 3)
    width = site.shape(1)[1] // 3
    present = _present(site, 8, batch, length, width // site.attr("num_heads"))
    return [(batch, length, width), present]


def _q_attention(
    x: Array, weights: Array, bias: Array, x_scale: Array, w_scale: Array,
    mask: Array | None = None, x_zero: Array | None = None, w_zero: Array | None = None,
    past: Array | None = None, **attrs: Any,
) -> tuple[Array, Array]:  # fmt: skip
    packed = integer_to_float(x, weights, x_scale, w_scale, x_zero, w_zero, bias)
    settled = {**attrs, "rotary_embedding_dim": 0}
    return _self_attention(packed, mask, past, None, None, settled)


# -- MultiHeadAttention --------------------------------------------------------------------


def _multi_head_shape(site: Site) -> list[Result]:
    return _heads_shape(site, past=6, shares=site.has(8))


def _decoder_shape(site: Site) -> list[Result]:
    return _heads_shape(site, past=5, shares=bool(site.attr("past_present_share_buffer")))


def _heads_shape(site: Site, past: int, *, shares: bool) -> list[Result]:
    """Shapes of the outputs; `past` is the index of the old keys."""
    heads = site.attr("num_heads")
    query = site.need_rank(0, 3, 5)
    if len(query) == 5:
        batch, length, _, _, size = query
        width = heads * size
    else:
        batch, length, width = query
        width = width if site.has(1) else width // 3
        size = width // heads
    new = _key_length(site, length)
    if site.has(1) and not site.has(2):
        site.same(site.shape(1)[0], batch, "the batch of keys")
    if site.has(2):
        value = site.shape(2)
        _check_keys(site, batch, width, size)
        width = value[2] if len(value) == 3 else heads * value[3]
    site.divides(heads, width, "the width of all heads")
    old = site.shape(past)[2] if site.has(past) else 0
    total = site.fresh(3, 3) if shares else new + old
    kept = old if shares else total
    if not shares:
        if site.has(past):
            past_length(site, past, (batch, heads, size, width // heads))
        mask, bias = (4, 5) if past == 6 else (3, 4)
        _check_masks(site, mask, bias, (batch, heads, length, total))
    return [
        (batch, length, width), (batch, heads, kept, size), (batch, heads, kept, width // heads),
        (batch, heads, length, total),
    ]  # fmt: skip


def _check_keys(site: Site, batch: Dim, width: Dim, size: Dim) -> None:
    """Keys are as wide as queries, and as many as values; rank 4 has its heads apart."""
    key, value = site.shape(1), site.shape(2)
    for each, what in ((key, "keys"), (value, "values")):
        site.same(each[0], batch, f"the batch of {what}")
    if len(key) == len(value) == 3:
        site.same(key[2], width, "the width of keys")
        site.same(value[1], key[1], "as many values as keys")
    if len(key) == len(value) == 4:
        site.same(key[3], size, "the width of a head of keys")
        site.same(value[2], key[2], "as many values as keys")


def _key_length(site: Site, length: Dim) -> Dim:
    if not site.has(1):
        return length
    key = site.need_rank(1, 3, 4, 5)
    return key[2] if len(key) == 4 else key[1]


def _multi_head(
    query: Array, key: Array | None = None, value: Array | None = None, bias: Array | None = None,
    padding: Array | None = None, attention_bias: Array | None = None,
    past_key: Array | None = None, past_value: Array | None = None,
    past_length: Array | None = None, beams: Array | None = None, **attrs: Any,
) -> tuple[Array, ...]:  # fmt: skip
    heads = attrs["num_heads"]
    q, k, v = _biased(_unpacked(query, key, value), bias)
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    count = _past_length(past_key, past_length)
    k, cache_k = extended(past_key, k, past_length, beams)
    v, cache_v = extended(past_value, v, past_length, beams)
    shape = (q.shape[0], q.shape[2], k.shape[2])
    filler = attrs["mask_filter_value"]
    total = added(padding_bias(padding, shape, count, filler), attention_bias)
    if attrs["unidirectional"]:
        total = added(total, causal_bias(*shape[1:]))
    y, scores, _ = attend(q, k, v, total, scale=attrs["scale"])
    return merge_heads(y), cache_k, cache_v, scores


def _unpacked(query: Array, key: Array | None, value: Array | None) -> tuple[Array, Array, Array]:
    """Queries, keys and values from one, two or three inputs."""
    if query.ndim == 5:
        parts = [query[:, :, :, i].reshape(*query.shape[:2], -1) for i in range(3)]
        return parts[0], parts[1], parts[2]
    if key is None:
        parts = np.split(query, 3, -1)
        return parts[0], parts[1], parts[2]
    if value is None:
        parts = [key[:, :, :, i].reshape(*key.shape[:2], -1) for i in range(2)]
        return query, parts[0], parts[1]
    return query, key, value


def _biased(parts: tuple[Array, Array, Array], bias: Array | None) -> tuple[Array, Array, Array]:
    """Each part plus its piece of the bias; keys and values that come from a cache have theirs."""
    if bias is None:
        return parts
    q, k, v = parts
    pieces = np.split(bias, [q.shape[-1], 2 * q.shape[-1]])
    k, v = (x + piece if x.ndim == 3 else x for x, piece in zip((k, v), pieces[1:], strict=True))
    return q + pieces[0], k, v


def _decoder(
    query: Array, key: Array | None = None, value: Array | None = None, mask: Array | None = None,
    attention_bias: Array | None = None, past_key: Array | None = None,
    past_value: Array | None = None, past_length: Array | None = None,
    beam_width: Array | None = None, beams: Array | None = None, bias: Array | None = None,
    *, output_qk: int, past_present_share_buffer: int, **attrs: Any,
) -> tuple[Array, ...]:  # fmt: skip
    """One step of decoding; the width of the beam is that of `beams`."""
    used = past_length if past_present_share_buffer else None
    return _multi_head(
        query, key, value, bias, mask, attention_bias, past_key, past_value, used, beams,
        unidirectional=0, **attrs,
    )  # fmt: skip


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_HEADS = {"num_heads": REQUIRED, "scale": None, "mask_filter_value": -10000.0}
_MASKED = {**_HEADS, "unidirectional": 0}

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
        "DecoderMaskedMultiHeadAttention",
        "query key? value? mask_index?:i32 attention_bias? past_key? past_value?"
        " past_sequence_length?:i32 beam_width?:i32 cache_indirection?:i32 bias?",
        "output present_key present_value qk",
        _decoder_shape,
        _decoder,
        **_HEADS,
        output_qk=0,
        past_present_share_buffer=0,
    ),
)

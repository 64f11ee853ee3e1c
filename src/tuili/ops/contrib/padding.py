"""com.microsoft: batches without their padding: packed tokens, attention over them, T5's bias."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tuili.ops.activations import sigmoid
from tuili.ops.attention import merge_heads, split_heads
from tuili.ops.contrib.attending import attend
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, Dim

# -- padding -------------------------------------------------------------------------------


def _remove_shape(site: Site) -> list[Result]:
    batch, length, width = site.need_rank(0, 3)
    return [(site.fresh(0), width), (batch, length), (batch + 1,), (1,)]


def _remove(x: Array, counts: Array) -> tuple[Array, ...]:
    batch, length, width = x.shape
    real = (np.arange(length) < counts[:, None]).ravel()
    place = np.arange(batch * length, dtype=np.int32)
    offsets = np.concatenate([place[real], place[~real]]).reshape(batch, length)
    sums = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    most = counts.max(initial=0).astype(np.int32).reshape(1)
    return x.reshape(-1, width)[real], offsets, sums, most


def _restore(x: Array, offsets: Array) -> Array:
    result = np.zeros((offsets.size, x.shape[-1]), x.dtype)
    result[offsets.ravel()[: len(x)]] = x
    return result.reshape(*offsets.shape, x.shape[-1])


def _restore_shape(site: Site) -> list[Result]:
    return [(*site.need_rank(1, 2), site.shape(0)[1])]


# -- attention over packed tokens ----------------------------------------------------------


def _packed(
    parts: Sequence[Array], heads: int, sums: Array, bias: Array | None, scale: float | None
) -> Array:
    """Each sequence of [tokens, heads * D] attends to itself."""
    results: list[Array] = []
    for row, (start, stop) in enumerate(pairwise(sums)):
        q, k, v = (split_heads(part[None, start:stop], heads) for part in parts)
        own = None
        if bias is not None:
            count = stop - start
            own = bias[row if len(bias) > 1 else 0, :, :count, :count]
        y, _, _ = attend(q, k, v, own, scale=scale)
        results.append(merge_heads(y)[0])
    return np.concatenate(results)


def _packed_attention(
    x: Array, weights: Array, bias: Array, offsets: Array, sums: Array,
    attention_bias: Array | None = None, *, num_heads: int, qkv_hidden_sizes: Any,
    scale: float | None,
) -> Array:  # fmt: skip
    total = x @ weights + bias
    sizes = list(qkv_hidden_sizes or [total.shape[-1] // 3] * 3)
    parts = np.split(total, np.cumsum(sizes)[:-1].tolist(), -1)
    return _packed(parts, num_heads, sums, attention_bias, scale)


def _packed_attention_shape(site: Site) -> list[Result]:
    sizes: Sequence[Dim] = site.attr("qkv_hidden_sizes") or (site.shape(1)[1] // 3,) * 3
    return [(site.shape(0)[0], sizes[2])]


def _packed_heads(
    query: Array, key: Array | None, value: Array | None, bias: Array | None, offsets: Array,
    sums: Array, attention_bias: Array | None = None, *, mask_filter_value: float, num_heads: int,
    scale: float | None,
) -> Array:  # fmt: skip
    if key is None or value is None:
        parts = [query[:, :, part].reshape(len(query), -1) for part in range(3)]
    else:
        parts = [query, key, value]
    if bias is not None:
        ends = np.cumsum([part.shape[-1] for part in parts])[:-1].tolist()
        pieces = np.split(bias, ends)
        parts = [part + piece for part, piece in zip(parts, pieces, strict=True)]
    return _packed(parts, num_heads, sums, attention_bias, scale)


def _packed_heads_shape(site: Site) -> list[Result]:
    query = site.need_rank(0, 2, 4)
    if len(query) == 4:
        return [(query[0], query[1] * query[3])]
    return [(query[0], site.shape(2)[1] if site.has(2) else query[1])]


# -- biases from relative positions --------------------------------------------------------


def _relative_shape(site: Site) -> list[Result]:
    rows, keys = site.dims(1), site.dims(2)
    return [
        (
            1,
            site.shape(0)[1],
            site.fresh(2) if rows is None else rows[0],
            site.fresh(3) if keys is None else keys[0],
        )
    ]


def _relative_bias(
    table: Array, rows: Array, keys: Array, *, is_bidirectional: int, max_distance: int
) -> Array:
    """A bias for each distance: near ones apart, far ones in buckets that grow (T5)."""
    count = table.shape[0]
    distance = np.arange(int(np.ravel(keys)[0])) - np.arange(int(np.ravel(rows)[0]))[:, None]
    bucket = np.zeros(distance.shape, np.int64)
    if is_bidirectional:
        count //= 2
        bucket += np.where(distance > 0, count, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    near = count // 2
    with np.errstate(divide="ignore"):
        ratio = np.log(distance.astype(np.float32) / np.float32(near))
    grown = ratio / np.float32(np.log(max_distance / near)) * np.float32(count - near)
    far = near + np.where(distance > 0, grown, 0).astype(np.int64)
    bucket += np.where(distance < near, distance, np.minimum(far, count - 1))
    return np.moveaxis(table[bucket], -1, 0)[None]


def _gated_shape(site: Site) -> list[Result]:
    if site.has(6):
        batch, length = site.need_rank(6, 2)
    else:
        batch, length, _ = site.need_rank(0, 3)
    return [(batch, site.attr("num_heads"), length, length)]


def _gated_bias(
    query: Array, query_bias: Array, positions: Array, weight: Array, bias: Array, eco_a: Array,
    offsets: Array | None = None, *, num_heads: int,
) -> Array:  # fmt: skip
    if offsets is not None:
        query = _restore(query, offsets)
    q = split_heads(query + query_bias, num_heads)
    sums = (q @ weight + bias).reshape(*q.shape[:3], 2, -1).sum(-1)
    u, r = sigmoid(sums[..., :1]), sigmoid(sums[..., 1:])
    return (u * (r * eco_a - 1) + 2) * positions


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


ROWS = (
    _row(
        "RemovePadding",
        "input sequence_token_count:i32",
        "output token_offset:i32 cumulated_seq_len:i32 max_seq_len:i32",
        _remove_shape,
        _remove,
    ),
    _row("RestorePadding", "input token_offset:i32", "output", _restore_shape, _restore),
    _row(
        "PackedAttention",
        "input weights bias token_offset:i32 cumulative_sequence_length:i32 attention_bias?",
        "output",
        _packed_attention_shape,
        _packed_attention,
        num_heads=REQUIRED,
        qkv_hidden_sizes=None,
        scale=None,
    ),
    _row(
        "PackedMultiHeadAttention",
        "query key? value? bias? token_offset:i32 cumulative_sequence_length:i32 attention_bias?",
        "output",
        _packed_heads_shape,
        _packed_heads,
        mask_filter_value=-10000.0,
        num_heads=REQUIRED,
        scale=None,
    ),
    _row(
        "RelativePositionBias",
        "bias_table query_length:i64 key_length:i64",
        "output",
        _relative_shape,
        _relative_bias,
        is_bidirectional=0,
        max_distance=REQUIRED,
    ),
    _row(
        "GatedRelativePositionBias",
        "query_layer query_bias rel_pos weight bias eco_a token_offset?:i32",
        "output",
        _gated_shape,
        _gated_bias,
        num_heads=REQUIRED,
    ),
)

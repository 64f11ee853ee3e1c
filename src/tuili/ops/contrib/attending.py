"""Attention over heads in NumPy, with what the operators of com.microsoft add to it."""

from __future__ import annotations

import numpy as np

from tuili.tensors import Array


def attend(
    q: Array, k: Array, v: Array, bias: Array | None, *, scale: float | None,
    softcap: float = 0.0, sink: Array | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Attention over [B, heads, S, D]; also the scores before the softmax, and after it.

    `sink` [heads] is one more score of every row, whose key has no value.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, groups, 1).astype(np.float32) for x in (k, v))
    factor = scale or 1 / np.sqrt(q.shape[-1])
    scores = np.matmul(q.astype(np.float32), k.swapaxes(-1, -2)) * np.float32(factor)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    odds = _odds(scores, sink)
    return np.matmul(odds, v), scores, odds


def _odds(scores: Array, sink: Array | None) -> Array:
    """Softmax along the last axis; a row of -inf only becomes zeros."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    if sink is not None:
        sink = sink.astype(np.float32).reshape(-1, 1, 1)
        top = np.maximum(top, sink)
    top = np.where(np.isneginf(top), 0, top)
    powers = np.exp(scores - top)
    total = powers.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - top)
    return powers / np.where(total == 0, 1, total)


def added(*terms: Array | None) -> Array | None:
    """The sum of the terms that are given."""
    total: Array | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def causal_bias(rows: int, keys: int) -> Array:
    """Queries stand at the end of the keys and see none that come later."""
    seen = np.tri(rows, keys, keys - rows, bool)
    return np.where(seen, np.float32(0), np.float32(-np.inf))


def padding_bias(
    mask: Array | None, shape: tuple[int, int, int], past: int, filler: float
) -> Array | None:
    """What a mask adds to the scores of `shape`: batch, queries, keys.

    It holds key lengths [B], ends and begins [2B], lengths and cumulated lengths [3B + 2], or a
    flag a key: [B, L], [B, S, L], or [B, 1, M, M] for all positions of which these are some.
    """
    if mask is None:
        return None
    batch, rows, keys = shape
    if mask.ndim == 1:
        place = np.arange(keys)
        kept = place < mask[:batch, None]
        if len(mask) == 2 * batch:
            kept &= place >= mask[batch:, None]
        kept = kept[:, None, None]
    elif mask.ndim == 4:
        kept = mask[:, :, past : past + rows, :keys] != 0
    else:
        kept = mask.reshape(len(mask), 1, -1, mask.shape[-1]) != 0
    return np.where(kept, np.float32(0), np.float32(filler))


def extended(
    past: Array | None, new: Array, used: Array | None, beams: Array | None
) -> tuple[Array, Array]:
    """All keys or values, and the cache that holds them.

    With `used`, the cache is a buffer for more positions than it holds, and `used` of them count.
    `beams` [B / W, W, L] says which of W beams each position of the past is taken from.
    """
    if past is None:
        return new, new
    count = past.shape[2] if used is None else int(np.ravel(used)[0])
    seen = past[:, :, :count]
    if beams is not None:
        width = beams.shape[1]
        first = np.arange(len(past)) // width * width
        rows = first[:, None] + beams.reshape(len(past), -1)[:, :count]
        seen = seen[rows, :, np.arange(count)].swapaxes(1, 2)
    full = np.concatenate([seen, new], 2)
    if used is None:
        return full, full
    cache = past.copy()
    cache[:, :, count : count + new.shape[2]] = new
    return full, cache

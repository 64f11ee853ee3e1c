"""com.microsoft::GroupQueryAttention, the attention of exported language models, as core operators.

Each row of the batch has its own number of keys; a step's tokens stand at the end of them. The new
cache is made row by row out of the old one and the step's keys, so that a cache that grows, a
buffer with room to spare and padded prompts are all one case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tuili.ir import Node, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.attention.parts import (
    Heads,
    Scores,
    all_of,
    at_least,
    attended,
    filled,
    finish,
    heads_first,
    is_known_f32,
    is_number,
    is_read,
    merged,
    over_keys,
    scale_of,
    spelt_out,
    split_heads,
    total,
)
from tuili.passes.attention.rotary import turned
from tuili.passes.making import Making, counted, is_known, shaped
from tuili.tensors import Dim, DType, dim_max, numel, symbols_of

NAME: Final = "com.microsoft::GroupQueryAttention"
_TENSORS: Final = (0, 1, 2, 3, 4, 7, 8, 10, 11, 14, 15)
_STORED: Final = (12, 13, 16)  # scales of a cache of integers, real tokens of a padded chunk


def can_spell(node: Node, contents: Contents) -> bool:
    """f32 with a cache of f32 that grows, and a number of keys that the shapes of inputs give."""
    inputs = [node.input(at) for at in range(17)]
    if not all(is_known_f32(inputs[at]) for at in _TENSORS) or not all(map(is_known, inputs)):
        return False
    if any(inputs[at] is not None for at in _STORED) or is_read(node, 3):
        return False
    if attr(node, "sliding_window_cache") or attr(node, "k_quant_type") != "NONE":
        return False
    keys = contents.dims(inputs[6])
    known = keys is not None and not any(symbols_of(keys[0]) & set(contents.sources))
    return known and len(node.required(0).shape) == 3 and is_number(_depth(node))


def _depth(node: Node) -> Dim:
    heads, shared = attr(node, "num_heads"), attr(node, "kv_num_heads")
    parts = heads if node.input(1) is not None else heads + 2 * shared
    return node.required(0).shape[-1] // parts


@dataclass(frozen=True, slots=True)
class _Step:
    """Where the tokens of a step stand, i64: [B, 1], [B, 1], [B, 1] and [B, S]."""

    lengths: Value  # keys of each row after the step
    counts: Value  # real tokens
    starts: Value
    places: Value
    keys: Dim  # positions that the scores have a column for


def spell(m: Making, contents: Contents) -> None:
    """Rotary embedding, the cache, the mask and the product."""
    node = m.node
    q, k, v = _parts(m)
    keys = contents.dims(node.input(6))
    assert keys is not None  # can_spell
    step = _step(m, q, keys[0])
    if attr(node, "do_rotary") and node.input(7) is not None:
        q, k = _turned(m, q, k, step)
    cache_k, cache_v = (_grown(m, node.input(at), new, step) for at, new in ((3, k), (4, v)))
    seen_k, seen_v = (_first(m, cache, step.keys) for cache in (cache_k, cache_v))
    mask = total(m, filled(m, _seen(m, q, step)), _bias(m, step))
    kind = Scores(scale_of(m, q.dim("d")), float(attr(node, "softcap")), _sink(m))
    if kind.is_plain:
        y = attended(m, q, seen_k, seen_v, mask, kind.scale)
    else:
        y = spelt_out(m, q, seen_k, seen_v, mask, kind).y
    finish(m, merged(m, y), cache_k, cache_v)


def _parts(m: Making) -> list[Heads]:
    """Queries, keys and values with their heads apart, normalised where the node has weights."""
    node = m.node
    heads, shared = int(attr(node, "num_heads")), int(attr(node, "kv_num_heads"))
    values = [node.input(at) for at in range(3)]
    if values[1] is None:
        size = _depth(node)
        assert isinstance(size, int)  # can_spell
        widths = np.array([heads * size, shared * size, shared * size], np.int64)
        values = list(m.all("Split", node.required(0), widths, outputs=3, axis=2))
    counts = (heads, shared, shared)
    parts = [split_heads(m, x, n) for x, n in zip(values, counts, strict=True) if x is not None]
    for at, slot, name in ((0, 14, "q_norm_epsilon"), (1, 15, "k_norm_epsilon")):
        weight = node.input(slot)
        if weight is not None:
            epsilon = float(attr(node, name) or attr(node, "qk_norm_epsilon"))
            x = parts[at]
            normed = m("RMSNormalization", x.value, weight, axis=-1, epsilon=epsilon)
            parts[at] = Heads(normed, x.order)
    return parts


def _step(m: Making, q: Heads, keys: Dim) -> _Step:
    batch, rows = q.dim("b"), q.dim("s")
    last = m("Cast", shaped(m, m.node.required(5), (batch, 1)), to=DType.I64)
    lengths = m("Add", last, np.int64(1))
    counts = m("Min", lengths, m.dims((rows,)))
    starts = m("Sub", lengths, counts)
    return _Step(lengths, counts, starts, m("Add", starts, counted(m, rows)), keys)


# -- rotary ------------------------------------------------------------------------------------


def _turned(m: Making, q: Heads, k: Heads, step: _Step) -> tuple[Heads, Heads]:
    node = m.node
    caches = node.required(7), node.required(8)
    last = m("Sub", m("Shape", caches[0], start=0, end=1), np.int64(1))
    places = m("Max", m("Min", _angles_of(m, q, step), last), np.int64(0))
    cos, sin = (m("Gather", each, places, axis=0) for each in caches)
    interleaved = bool(attr(node, "rotary_interleaved"))
    first, second = (turned(m, each, cos, sin, interleaved=interleaved) for each in (q, k))
    return first, second


def _angles_of(m: Making, q: Heads, step: _Step) -> Value:
    """The positions that turn the tokens; of a first prompt only the first number is read."""
    given = m.node.input(9)
    if given is None:
        return step.places
    rows = q.dim("s")
    first = m("Gather", shaped(m, given, (numel(given.shape),)), np.array([0]), axis=0)
    prompt = m("Add", first, counted(m, rows))
    if given.shape != (q.dim("b"), rows):
        return m("Add", prompt, m("Mul", step.starts, np.int64(0)))
    if rows == step.keys:
        return m("Add", prompt, m("Mul", step.places, np.int64(0)))
    is_first = m("Equal", m.dims((rows,)), m.dims((step.keys,)))
    return m("Where", is_first, prompt, given)


# -- the cache ---------------------------------------------------------------------------------


def _grown(m: Making, past: Value | None, new: Heads, step: _Step) -> Heads:
    """The cache after the step: [B, heads, room, D], zeros where there is no key."""
    room = step.keys if past is None else dim_max(past.shape[2], step.keys)
    fresh = heads_first(m, new)
    return Heads(m("CacheRows", past, fresh, step.starts, step.counts, m.dims((room,))))


def _first(m: Making, cache: Heads, keys: Dim) -> Heads:
    """The positions that count."""
    if cache.dim("s") == keys:
        return cache
    cut = m("Slice", cache.value, np.array([0]), m.dims((keys,)), np.array([2]))
    return Heads(cut)


# -- the mask ----------------------------------------------------------------------------------


def _seen(m: Making, q: Heads, step: _Step) -> Value | None:
    """[B, 1, S, keys]: which keys a token sees."""
    node, batch = m.node, q.dim("b")
    place = counted(m, step.keys)
    seen = [m("Less", place, shaped(m, step.lengths, (batch, 1, 1, 1)))]
    distance = m("Sub", shaped(m, step.places, (batch, 1, q.dim("s"), 1)), place)
    window = int(attr(node, "local_window_size"))
    if attr(node, "causal"):
        seen.append(at_least(m, distance, 0))
    if window > 0:
        seen.append(m("Less", distance, np.int64(window)))
    return all_of(m, seen)


def _bias(m: Making, step: _Step) -> Value | None:
    bias = m.node.input(10)
    if bias is None or bias.shape[-1] == step.keys:
        return bias
    cut = m("Slice", bias, np.array([0]), m.dims((step.keys,)), np.array([-1]))
    return over_keys(m, cut, step.keys, np.array(np.float32(0)))


def _sink(m: Making) -> Value | None:
    """One more score of every row, [heads], whose key has no value."""
    sink = m.node.input(11)
    if sink is None and attr(m.node, "smooth_softmax") > 0:
        return m.constant(np.zeros(attr(m.node, "num_heads"), np.float32))
    return sink

"""com.microsoft: Attention with its projection, and MultiHeadAttention, as core operators."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.passes.attention.parts import (
    Heads,
    at_least,
    attended,
    causal_offset,
    extended,
    filled,
    finish,
    grid_of,
    heads_first,
    is_known_f32,
    is_number,
    is_read,
    merged,
    over_keys,
    scale_of,
    split_heads,
    total,
)
from tuili.passes.making import Making, counted, is_known, shaped
from tuili.passes.rewrite import Rewrite
from tuili.tensors import Dim, DType


def _is_plain_mask(mask: Value | None, batch: Dim) -> bool:
    """Key lengths, ends and begins, or a flag a key; not the cumulated lengths of packed rows."""
    if mask is None:
        return True
    if not is_known(mask):
        return False
    if len(mask.shape) == 1:
        return mask.shape[0] in (batch, batch * 2)
    return 1 < len(mask.shape) <= 4


def _padding(m: Making, mask: Value | None, q: Heads, keys: Dim, past: Dim) -> Value | None:
    """What a mask of com.microsoft adds to the scores: a number, not minus infinity."""
    if mask is None:
        return None
    batch, rows = q.dim("b"), q.dim("s")
    if len(mask.shape) == 1:
        seen = _between(m, mask, batch, keys)
    else:
        if len(mask.shape) == 4:
            ends = m.dims((past + rows, keys))
            mask = m("Slice", mask, m.dims((past, 0)), ends, np.array([2, 3]))
        elif len(mask.shape) == 3:
            mask = shaped(m, mask, (mask.shape[0], 1, *mask.shape[1:]))
        else:
            mask = shaped(m, mask, (mask.shape[0], 1, 1, mask.shape[1]))
        seen = m("Not", m("Equal", mask, np.zeros((), mask.dtype.numpy)))
        seen = over_keys(m, seen, keys, np.array(True))
    return filled(m, seen, np.float32(attr(m.node, "mask_filter_value")))


def _between(m: Making, mask: Value, batch: Dim, keys: Dim) -> Value:
    """Where keys are, of which the ends, and maybe the begins, are given."""
    ends = m("Cast", mask, to=DType.I64)
    place = counted(m, keys)
    if mask.shape[0] == batch:
        return m("Less", place, shaped(m, ends, (batch, 1, 1, 1)))
    both = shaped(m, ends, (2, batch, 1, 1, 1))
    last, first = (m("Gather", both, np.int64(at), axis=0) for at in (0, 1))
    return m("And", m("Less", place, last), m("GreaterOrEqual", place, first))


def _causal(m: Making, q: Heads, k: Heads) -> Value | None:
    if not attr(m.node, "unidirectional"):
        return None
    rows, keys = q.dim("s"), k.dim("s")
    grid = grid_of(m, rows, keys, causal_offset(rows, keys))
    return filled(m, at_least(m, grid.distance(m), 0))


def _is_projected(node: Node) -> bool:
    """Attention with its projection; a cache in a buffer of its own stays with the operator."""
    x, weights = node.required(0), node.required(1)
    optional = [node.input(at) for at in (2, 4, 5)]
    if not all(is_known_f32(each) for each in (x, weights, *optional)) or node.input(6) is not None:
        return False
    if attr(node, "do_rotary") or attr(node, "past_present_share_buffer"):
        return False
    sizes = attr(node, "qkv_hidden_sizes")
    same = sizes is None or len(set(sizes)) == 1 or not is_read(node, 1)
    mask = node.input(3)
    return (
        len(x.shape) == 3
        and len(weights.shape) == 2
        and is_number(weights.shape[1])
        and same
        and _is_plain_mask(mask, x.shape[0])
    )


def _projected(m: Making) -> None:
    node = m.node
    product = m("MatMul", node.required(0), node.required(1))
    packed = total(m, product, node.input(2))
    assert packed is not None
    width: Any = node.required(1).shape[1]
    sizes = list(attr(node, "qkv_hidden_sizes") or [width // 3] * 3)
    parts = m.all("Split", packed, np.array(sizes, np.int64), outputs=3, axis=2)
    q, k, v = (split_heads(m, part, attr(node, "num_heads")) for part in parts)
    past = node.input(4)
    if past is not None:
        old = [m("Gather", past, np.int64(at), axis=0) for at in (0, 1)]
        k, v = extended(m, old[0], k), extended(m, old[1], v)
    before = 0 if past is None else past.shape[3]
    mask = total(
        m, _padding(m, node.input(3), q, k.dim("s"), before), node.input(5), _causal(m, q, k)
    )
    y = merged(m, attended(m, q, k, v, mask, scale_of(m, q.dim("d"))))
    results = [y]
    if len(node.outputs) > 1:
        results.append(_stacked(m, k, v) if is_read(node, 1) else y)
    m.replace(*results)


def _stacked(m: Making, k: Heads, v: Heads) -> Value:
    """[2, B, heads, T, D]."""
    both = [m("Unsqueeze", heads_first(m, each), np.array([0])) for each in (k, v)]
    return m("Concat", *both, axis=0)


_BUFFERS: Final = (8, 9)  # a cache with room to spare, and beams


def _is_multi_head(node: Node) -> bool:
    query, key = node.required(0), node.input(1)
    tensors = [node.input(at) for at in (0, 1, 2, 3, 5, 6, 7)]
    if not all(map(is_known_f32, tensors)) or is_read(node, 3):
        return False
    if any(node.input(at) is not None for at in _BUFFERS):
        return False
    width = query.shape[-1] if len(query.shape) == 5 else query.shape[2] // attr(node, "num_heads")
    if len(query.shape) == 3 and key is None:
        width = width // 3
    return is_number(width) and _is_plain_mask(node.input(4), query.shape[0])


def _multi_head(m: Making) -> None:
    node = m.node
    q, k, v = _three_parts(m)
    past = node.input(6)
    k, v = extended(m, past, k), extended(m, node.input(7), v)
    before = 0 if past is None else past.shape[2]
    mask = total(
        m, _padding(m, node.input(4), q, k.dim("s"), before), node.input(5), _causal(m, q, k)
    )
    y = merged(m, attended(m, q, k, v, mask, scale_of(m, q.dim("d"))))
    finish(m, y, k, v)


def _three_parts(m: Making) -> list[Heads]:
    """Queries, keys and values out of one, two or three inputs, each with its bias."""
    node, count = m.node, int(attr(m.node, "num_heads"))
    query, key, value, bias = (node.input(at) for at in range(4))
    assert query is not None
    if len(query.shape) == 5:
        parts = [_picked(m, query, at) for at in range(3)]
    elif key is None:
        thirds = m.all("Split", query, outputs=3, axis=2, num_outputs=3)
        parts = [split_heads(m, each, count) for each in thirds]
    elif value is None:
        parts = [split_heads(m, query, count), *(_picked(m, key, at) for at in range(2))]
    else:
        parts = [split_heads(m, each, count) for each in (query, key, value)]
    return parts if bias is None else _biased(m, parts, bias)


def _picked(m: Making, packed: Value, at: int) -> Heads:
    """One of [B, S, heads, n, D]."""
    return Heads(m("Gather", packed, np.int64(at), axis=3), "bshd")


def _biased(m: Making, parts: list[Heads], bias: Value) -> list[Heads]:
    """Keys and values that come with their heads apart have their bias already."""
    widths = [part.dim("h") * part.dim("d") for part in parts]
    bounds = [0, widths[0], widths[0] * 2, widths[0] * 2 + widths[2]]
    found: list[Heads] = []
    for index, part in enumerate(parts):
        if part.order == "bhsd":
            found.append(part)
            continue
        first, last = m.dims((bounds[index],)), m.dims((bounds[index + 1],))
        piece = m("Slice", bias, first, last, np.array([0]))
        piece = shaped(m, piece, (part.dim("h"), part.dim("d")))
        found.append(Heads(m("Add", part.value, piece), part.order))
    return found


CONTRIB: Final = {
    "com.microsoft::Attention": Rewrite(_projected, _is_projected),
    "com.microsoft::MultiHeadAttention": Rewrite(_multi_head, _is_multi_head),
}

"""Attention operators become products of heads under a mask, as one table.

The standard's Attention, and those that optimizers and exporters write (com.microsoft): projection,
heads, caches and masks in all their forms are core operators around `FusedAttention`.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.table import attr
from tuili.passes.attention import group_query
from tuili.passes.attention.contrib import CONTRIB
from tuili.passes.attention.parts import (
    Heads,
    Scores,
    all_of,
    at_least,
    attended,
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
    spelt_out,
    split_heads,
    total,
)
from tuili.passes.attention.rotary import ROTARY
from tuili.passes.making import Making, counted, is_known, shaped
from tuili.passes.rewrite import Rewrite, rewrite_nodes
from tuili.tensors import Dim, DType


def attention_to_core(graph: Graph, contents: Contents) -> bool:
    """Rewrite every such node whose types are known."""
    grouped = Rewrite(
        partial(group_query.spell, contents=contents),
        partial(group_query.can_spell, contents=contents),
    )
    return rewrite_nodes(graph, contents, {**REWRITES, group_query.NAME: grouped})


# -- the standard's ----------------------------------------------------------------------------


def _is_attention(node: Node) -> bool:
    inputs = [node.input(index) for index in range(7)]
    tensors = [inputs[at] for at in (0, 1, 2, 4, 5)]
    if not all(is_known_f32(each, 3, 4) for each in tensors) or not all(map(is_known, inputs)):
        return False
    q = node.required(0)
    heads = q.shape[1] if len(q.shape) == 4 else attr(node, "q_num_heads")
    depth = q.shape[-1] if len(q.shape) == 4 else heads and q.shape[-1] // heads
    mask = inputs[3]
    plain = mask is None or mask.dtype in (DType.BOOL, DType.F32)
    return plain and bool(heads) and is_number(depth)


def _attention(m: Making) -> None:
    node = m.node
    q = split_heads(m, node.required(0), attr(node, "q_num_heads"))
    k, v = (split_heads(m, node.required(at), attr(node, "kv_num_heads")) for at in (1, 2))
    past = node.input(4)
    k, v = extended(m, past, k), extended(m, node.input(5), v)
    mask = _mask(m, q, k, 0 if past is None else past.shape[2])
    kind = Scores(scale_of(m, q.dim("d")), float(attr(node, "softcap")))
    shown: Value | None = None
    if not kind.is_plain or is_read(node, 3):
        spelt = spelt_out(m, q, k, v, mask, kind)
        y, shown = spelt.y, spelt.scores[attr(node, "qk_matmul_output_mode")]
    else:
        y = attended(m, q, k, v, mask, kind.scale)
    flat = len(node.required(0).shape) == 3
    result = merged(m, y) if flat else heads_first(m, y)
    finish(m, result, k, v, shown)


def _mask(m: Making, q: Heads, k: Heads, past: Dim) -> Value | None:
    """What is added to the scores: padding, frontier, window and the mask that was given."""
    node, rows, keys = m.node, q.dim("s"), k.dim("s")
    seen: list[Value] = []
    offset: Dim | Value = past
    lengths = node.input(6)
    if lengths is not None:
        each = shaped(m, lengths, (lengths.shape[0], 1, 1, 1))
        offset = m("Sub", each, m.dims((rows,)))
        seen.append(m("Less", counted(m, keys), each))
    causal = bool(attr(node, "is_causal"))
    left, right = int(attr(node, "left_window_size")), int(attr(node, "right_window_size"))
    if causal or left >= 0 or right >= 0:
        distance = grid_of(m, rows, keys, offset).distance(m)
        seen += [at_least(m, distance, 0)] if causal else []
        seen += [m("LessOrEqual", distance, np.int64(left))] if left >= 0 else []
        seen += [at_least(m, distance, -right)] if right >= 0 else []
    mask = node.input(3)
    if mask is not None:
        mask = _padded(m, mask, keys)
    if mask is not None and mask.dtype is DType.BOOL:
        seen.append(mask)
        mask = None
    return total(m, filled(m, all_of(m, seen)), mask)


def _padded(m: Making, mask: Value, keys: Dim) -> Value:
    """A mask may be shorter than the keys: those behind its end are not seen."""
    if not mask.shape or mask.shape[-1] == keys:
        return mask
    missing = m("Max", m("Sub", m.dims((keys,)), m.dims(mask.shape[-1:])), np.zeros(1, np.int64))
    zeros = np.zeros(len(mask.shape) * 2 - 1, np.int64)
    pads = m("Concat", zeros, missing, axis=0)
    if mask.dtype is DType.BOOL:
        narrow = m("Pad", m("Cast", mask, to=DType.F32), pads, np.float32(0))
        mask = m("Greater", narrow, np.float32(0.5))
        return over_keys(m, mask, keys, np.array(True))
    return over_keys(m, m("Pad", mask, pads, np.float32(-np.inf)), keys, np.array(np.float32(0)))


REWRITES: Final = {
    "Attention": Rewrite(_attention, _is_attention),
    **CONTRIB,
    **ROTARY,
}

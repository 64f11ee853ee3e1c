"""Products with packed weights in forms that no kernel reads become products that kernels run.

    MatMulNBits with an order of k    x is put in that order instead, and the codes are, once
    MatMulBnb4                        MatMul with the numbers that the codes stand for

GPTQ orders k by importance ("act-order", arXiv:2210.17323): what lies in a block of codes then
belongs to scales of many blocks. Sorted by scale, the codes are as any others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ir import Graph, Node
from tuili.ops.contents import Contents
from tuili.ops.contrib.weights import bnb4_weights, nbits_weights, pack_bits, unpack_bits
from tuili.ops.table import attributes
from tuili.passes.making import Making
from tuili.tensors import Array, DType


def plain_weight_codes(graph: Graph, contents: Contents) -> bool:
    """Rewrite every such product of known weights with x in f32."""
    changed = False
    for node in list(graph.nodes):
        rewrite = _REWRITES.get(node.op)
        if rewrite and node.required(0).dtype is DType.F32 and "epilogue" not in node.attrs:
            changed |= rewrite(node, Making(graph, node, contents))
    return changed


def _known(node: Node, slots: range) -> list[Array | None] | None:
    """The constants in these slots; None when one of them is not known."""
    values = [node.input(slot) for slot in slots]
    if any(value is not None and not value.is_constant for value in values):
        return None
    return [None if value is None else value.constant for value in values]


def _in_order(node: Node, m: Making) -> bool:
    known = _known(node, range(1, 5))
    if known is None:
        return False
    codes, scales, zeros, groups = known
    if codes is None or scales is None or groups is None or not codes.size:
        return False
    attrs, x, bias = attributes(node), node.required(0), node.input(5)
    order = np.argsort(groups[: attrs["K"]], kind="stable")
    if 8 % attrs["bits"] or not _fills_blocks(groups[order], attrs["block_size"]):
        weights = nbits_weights(codes, scales, zeros, groups, attrs)
        m.replace(m("MatMul", x, np.ascontiguousarray(weights.T), bias))
        return True
    sorted_x = m("Gather", x, order.astype(np.int64), axis=-1)
    packed = _sorted_codes(codes, order, attrs)
    inputs = [sorted_x, packed, node.input(2), node.input(3), None, bias]
    m.replace(m(node.op, *inputs, **node.attrs))
    return True


def _fills_blocks(groups: Array, block: int) -> bool:
    """Whether every group but the last has as many members as a block."""
    return bool(np.array_equal(groups, np.arange(groups.size) // block))


def _sorted_codes(packed: Array, order: Array, attrs: dict[str, Any]) -> Array:
    width, block, bits = attrs["N"], attrs["block_size"], attrs["bits"]
    blocks = -(-len(order) // block)
    codes = unpack_bits(packed.reshape(width, blocks, -1), bits, block).reshape(width, -1)
    codes = np.concatenate([codes[:, order], codes[:, len(order) :]], axis=1)
    return pack_bits(codes.reshape(width, blocks, block), bits)


def _as_numbers(node: Node, m: Making) -> bool:
    known = _known(node, range(1, 3))
    if known is None:
        return False
    codes, scales = known
    if codes is None or scales is None:
        return False
    weights = bnb4_weights(codes, scales, attributes(node))
    m.replace(m("MatMul", node.required(0), np.ascontiguousarray(weights), None))
    return True


_REWRITES = {"com.microsoft::MatMulNBits": _in_order, "com.microsoft::MatMulBnb4": _as_numbers}

"""Narrow groups: convolution groups thinner than a vector are joined until they fill one.

Joined groups have block-diagonal weights: some products with zero buy whole vectors. Eight channels
a group on 16 lanes cost twice the arithmetic, and run many times faster than one lane at a time.
A few groups that never fill whole vectors, three of 20 channels, become one for the same reason.
Groups of a single tap stay as they are: as products of matrices they need no whole vectors.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType
from tuili.ops.table import attr
from tuili.tensors import Array, DType, numel

MOST_ZEROS = 8  # times the arithmetic
MOST_DENSE = 4  # groups of any size that become one


def merge_groups(graph: Graph, block: int) -> bool:
    """Join the groups of every convolution that has thin ones."""
    changed = False
    for node in graph.nodes:
        count = _joined(node, block) if node.op == "Conv" else 0
        if count:
            _merge(graph, node, count)
            changed = True
    return changed


def _joined(node: Node, block: int) -> int:
    """How many groups make whole blocks of inputs and outputs; 0 when nothing is to be done."""
    weights, groups = node.required(1).constant, attr(node, "group")
    x = node.required(0).type
    if weights is None or groups == 1 or weights.dtype != DType.F32.numpy:
        return 0
    if not isinstance(x, TensorType) or x.shape is None or not 3 <= len(x.shape) <= 4:
        return 0
    inputs, outputs = weights.shape[1], weights.shape[0] // groups
    if inputs == outputs == 1 or (inputs % block == 0 and outputs % block == 0):
        return 0
    fits = (n for n in range(2, MOST_ZEROS + 1) if groups % n == 0)
    whole = groups if groups <= MOST_DENSE else 0
    count = next((n for n in fits if n * inputs % block == 0 and n * outputs % block == 0), whole)
    return 0 if numel(weights.shape[2:]) == 1 and _is_cheaper_alone(outputs, count) else count


def _is_cheaper_alone(outputs: int, count: int) -> bool:
    """Whether products of a single tap, group by group, cost less than those with zeros.

    Every input is copied beside its neighbours first, which takes the time of four outputs.
    """
    return outputs >= 4 and outputs + 4 < outputs * count * 3 // 4


def _merge(graph: Graph, node: Node, count: int) -> None:
    weights = node.required(1).constant
    assert weights is not None
    groups = attr(node, "group")
    merged = block_diagonal(weights, groups, count)
    name = f"{node.required(1).name}_merged"
    node.set_input(1, graph.add_constant(merged, name))
    node.attrs["group"] = groups // count


def block_diagonal(weights: Array, groups: int, count: int) -> Array:
    """Weights [O, C / groups, ...] for `groups / count` groups, zero between the old ones."""
    outputs, inputs = weights.shape[:2]
    each = outputs // groups
    merged = np.zeros((outputs, inputs * count, *weights.shape[2:]), weights.dtype)
    for group in range(groups):
        rows = slice(group * each, (group + 1) * each)
        start = group % count * inputs
        merged[rows, start : start + inputs] = weights[rows]
    return merged

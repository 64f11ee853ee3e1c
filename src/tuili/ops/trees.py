"""TreeScores: an ensemble of decision trees as flat arrays, without its post-transforms.

Node i of `nodes` is [feature, accept, true, false]. The sample's value v is compared with the
split s, and the node's true branch is taken when `accept` has the bit of the outcome: 1 for v < s,
2 for v = s, 4 for v > s, 8 when either is no number. A leaf leads to itself on both branches.
What leaf i gives is `weights[starts[i]:starts[i + 1]]`, to the `targets` beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.op import REQUIRED, op
from tuili.tensors import Array

LESS, EQUAL, GREATER, UNORDERED = 1, 2, 4, 8
_STARTS = {"MIN": np.inf, "MAX": -np.inf}


def _outcomes(value: Array, split: Array) -> Array:
    return np.select(
        [value < split, value == split, value > split], [LESS, EQUAL, GREATER], UNORDERED
    )


def _leaves(x: Array, splits: Array, nodes: Array, roots: Array) -> Array:
    """The leaf that each sample reaches in each tree: [N, trees]."""
    at = np.broadcast_to(roots, (len(x), len(roots))).astype(np.int64)
    rows = np.arange(len(x))[:, None]
    while True:
        feature, accept, true, false = np.moveaxis(nodes[at], -1, 0)
        taken = accept & _outcomes(x[rows, feature], splits[at])
        step = np.where(taken, true, false)
        if (step == at).all():
            return at
        at = step


def _tree_scores(
    X: Array,
    splits: Array,
    nodes: Array,
    roots: Array,
    starts: Array,
    targets: Array,
    weights: Array,
    *,
    num_targets: int,
    how: str,
) -> tuple[Array, Array]:
    leaves = _leaves(X, splits, nodes, roots)
    start = X.dtype.type(_STARTS.get(how, 0))
    combine: Any = {"MIN": min, "MAX": max}.get(how, lambda a, b: a + b)
    scores = np.full((len(X), num_targets), start, X.dtype)
    voted = np.zeros(scores.shape, bool)
    for row, reached in enumerate(leaves):
        # One tree after the other, in the element type: that settles ties as other engines do.
        for leaf in reached:
            for at in range(starts[leaf], starts[leaf + 1]):
                place = row, targets[at]
                scores[place] = combine(scores[place], weights[at])
                voted[place] = True
    if how == "AVERAGE":
        scores = scores / X.dtype.type(len(roots))
    scores = np.where(np.isfinite(scores), scores, 0).astype(X.dtype)
    return scores, np.where(voted, scores, -np.inf).astype(X.dtype)


ROWS = (
    op(
        "TreeScores",
        "X:T splits:T nodes:i32 roots:i32 starts:i32 targets:i32 weights:T",
        "scores:T ranks?:T",
        lambda site: [(site.shape(0)[0], site.attr("num_targets"))] * site.num_outputs,
        _tree_scores,
        attrs={"num_targets": REQUIRED, "how": "SUM"},
        allow="float",
    ),
)

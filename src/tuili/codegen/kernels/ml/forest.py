"""Forest: decision trees as a kernel walks them: both children of a node side by side.

A step is then one comparison added to one index. Each tree lies together, the nodes near its root
first, as those are read for every sample. A leaf leads to itself because nothing is true of its
split, NaN. Trees that share nodes, and so are none, stay as they are, with two indices a node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.ops.trees import EQUAL, GREATER, LESS, UNORDERED
from tuili.tensors import Array

# When every node asks the same, one comparison is the whole question.
_COMPARISONS = {LESS | EQUAL: "<=", LESS: "<", GREATER | EQUAL: ">=", GREATER: ">"}
# Without branches, which would be guessed wrong half of the time.
_ANY_QUESTION = (
    f"(((v < s) * {LESS} + (v == s) * {EQUAL} + (v > s) * {GREATER} + (v != v || s != s) * "
    f"{UNORDERED}) & node->accept)"
)


@dataclass(frozen=True, slots=True)
class Forest:
    """Nodes in an order of their own, and where they were in the order of the operator."""

    splits: Array
    features: Array
    accept: Array
    next: Array  # [nodes, 2]: on false, on true
    roots: Array
    places: Array
    is_leaf: Array  # leads to itself
    # What follows on true lies behind what follows on false; trees lie one after the other.
    is_paired: bool

    @property
    def tree_of_node(self) -> Array:
        """The tree of each node of paired ones."""
        return np.searchsorted(self.roots, np.arange(len(self.splits)), "right") - 1

    @property
    def question(self) -> str:
        """In C: whether `v` takes the true branch of `node`, whose split is `s`."""
        sure, asked = self.sure_question, self._asked
        if sure is None or not any(accept & UNORDERED for accept in asked):
            return sure or _ANY_QUESTION
        return f"({sure} | ((v != v) & (node->accept >= {UNORDERED})))"

    @property
    def sure_question(self) -> str | None:
        """The same of a sample without NaN, where all nodes ask the same of one."""
        sure = {accept & ~UNORDERED for accept in self._asked}
        comparison = _COMPARISONS.get(sure.pop()) if len(sure) == 1 else None
        return f"(v {comparison} s)" if comparison else None

    @property
    def _asked(self) -> set[int]:
        return set(np.unique(self.accept[~self.is_leaf]).tolist())


def forest(splits: Array, nodes: Array, roots: Array) -> Forest:
    """The nodes that can be reached from the roots, paired where each is reached by one way."""
    levels = _levels(nodes, roots)
    if not levels:
        feature, accept, true, false = nodes.T
        either, places = np.stack([false, true], 1), np.arange(len(nodes))
        is_leaf = _leads_to_itself(nodes, places)
        return Forest(splits, feature, accept, either, roots, places, is_leaf, is_paired=False)
    entries = np.concatenate([level for level, _ in levels])
    order = np.argsort(np.concatenate([trees for _, trees in levels]), kind="stable")
    places = entries[order]
    new = np.empty(len(nodes), np.int64)
    new[places] = np.arange(len(places))
    found = nodes[places]
    is_leaf = _leads_to_itself(found, places)
    return Forest(
        np.where(is_leaf, np.nan, splits[places]).astype(splits.dtype),
        np.where(is_leaf, 0, found[:, 0]),
        np.where(is_leaf, 0, found[:, 1]),
        new[found[:, [3, 2]]],
        new[roots],
        places,
        is_leaf,
        is_paired=True,
    )


def _leads_to_itself(nodes: Array, places: Array) -> Array:
    return (nodes[:, 2:] == places[:, None]).all(1)


def _levels(nodes: Array, roots: Array) -> list[tuple[Array, Array]] | None:
    """Nodes and their trees, level by level; None when a node is reached by two ways."""
    level, trees = roots.astype(np.int64), np.arange(len(roots))
    found: list[tuple[Array, Array]] = []
    seen = np.zeros(len(nodes), bool)
    while level.size:
        if seen[level].any() or len(np.unique(level)) < len(level):
            return None
        seen[level] = True
        found.append((level, trees))
        below = nodes[level][:, [3, 2]]
        is_inner = (below != level[:, None]).any(1)
        level, trees = below[is_inner].reshape(-1).astype(np.int64), np.repeat(trees[is_inner], 2)
    return found

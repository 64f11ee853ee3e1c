"""Votes: what leaves give to targets, as few loads as their ensemble allows.

Boosted trees give one number each, to one target a tree; forests that classify give every leaf a
number for every class. Both are read from one place; anything else from a list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernel import KernelBuilder
from tuili.codegen.kernels.ml.forest import Forest
from tuili.tensors import Array

_STEPS = {
    "SUM": "{to} += {weight};",
    "AVERAGE": "{to} += {weight};",
    "MIN": "if ({weight} < {to}) {to} = {weight};",
    "MAX": "if ({weight} > {to}) {to} = {weight};",
}


@dataclass(frozen=True, slots=True)
class Votes:
    """Node i of the operator gives `weights[starts[i]:starts[i + 1]]` to the targets beside."""

    starts: Array
    targets: Array
    weights: Array

    def of(self, trees: Forest) -> Votes:
        """The same of the nodes in the forest's order."""
        first, counts = self.starts[trees.places], np.diff(self.starts)[trees.places]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        at = np.repeat(first - starts[:-1], counts) + np.arange(starts[-1])
        return Votes(starts, self.targets[at], self.weights[at])


def scores(k: KernelBuilder, trees: Forest, votes: Votes, how: str, *, ranked: bool) -> str:
    """In C, what the leaf `at` of tree `tree + l` gives to the scores at `to`."""
    votes = votes.of(trees)
    counts = np.diff(votes.starts)
    each = int(counts.max(initial=0))
    if each and bool((counts == np.where(trees.is_leaf, each, 0)).all()):
        rows = votes.targets.reshape(-1, each)
        if each == 1:
            return _single(k, trees, votes, how, ranked=ranked)
        if bool((rows == rows[0]).all()):
            return _rows(k, trees, votes, how, ranked=ranked)
    k.weight("starts", votes.starts)
    k.weight("targets", votes.targets.astype(np.int32))
    k.weight("weights", votes.weights)
    return (
        "for (int32_t w = starts[at]; w < starts[at + 1]; w++) {\n"
        f"    {_given(how, 'targets[w]', 'weights[w]', ranked=ranked)}\n"
        "}"
    )


def _single(k: KernelBuilder, trees: Forest, votes: Votes, how: str, *, ranked: bool) -> str:
    """Every leaf gives one number: it lies at the node's own index."""
    weights = np.zeros(len(trees.splits), votes.weights.dtype)
    weights[trees.is_leaf] = votes.weights
    k.weight("weights", weights)
    target = "0"
    if votes.targets.any():
        targets, target = np.zeros(len(trees.splits), np.int32), "targets[at]"
        targets[trees.is_leaf] = votes.targets
        if trees.is_paired:
            tree = trees.tree_of_node[trees.is_leaf]
            of_tree = np.zeros(len(trees.roots), np.int32)
            of_tree[tree] = votes.targets
            if (of_tree[tree] == votes.targets).all():
                targets, target = of_tree, "targets[tree + l]"
        k.weight("targets", targets)
    return _given(how, target, "weights[at]", ranked=ranked)


def _rows(k: KernelBuilder, trees: Forest, votes: Votes, how: str, *, ranked: bool) -> str:
    """Every leaf gives a row of numbers to the same targets: rows lie by the leaves' ranks."""
    each = len(votes.weights) // int(trees.is_leaf.sum())
    k.weight("rank", (np.cumsum(trees.is_leaf) - 1).astype(np.int32))
    k.weight("weights", votes.weights)
    targets, target = votes.targets[:each].astype(np.int32), "w"
    if (targets != np.arange(each)).any():
        k.weight("targets", targets)
        target = "targets[w]"
    weight = f"weights[(int64_t)rank[at] * {each} + w]"
    return (
        f"for (int32_t w = 0; w < {each}; w++) {{\n"
        f"    {_given(how, target, weight, ranked=ranked)}\n"
        "}"
    )


def _given(how: str, target: str, weight: str, *, ranked: bool) -> str:
    step = _STEPS[how].format(to=f"to[{target}]", weight=weight)
    return f"{step} voted[{target}] = 1;" if ranked else step

"""Tree ensembles of ai.onnx.ml become TreeScores, and core operators for what comes after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tuili.errors import InvalidModel
from tuili.ir import Node, Value
from tuili.ops.ml.scores import TRANSFORMS
from tuili.ops.table import attr
from tuili.ops.trees import EQUAL, GREATER, LESS, UNORDERED
from tuili.passes.making import Making
from tuili.passes.ml.scores import (
    FLOATS,
    above,
    added,
    best,
    can_transform,
    is_batch,
    labelled,
    like,
    num_classes,
    numbers,
    samples,
    transformed,
    two_sided,
)
from tuili.tensors import Array

_ACCEPT = {
    "BRANCH_LEQ": LESS | EQUAL,
    "BRANCH_LT": LESS,
    "BRANCH_GTE": GREATER | EQUAL,
    "BRANCH_GT": GREATER,
    "BRANCH_EQ": EQUAL,
    "BRANCH_NEQ": LESS | GREATER,
    "LEAF": 0,
}
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
_HOW = ("AVERAGE", "SUM", "MIN", "MAX")


def is_trees(node: Node) -> bool:
    """Whether the ensemble can be spelt out."""
    if node.op == "ai.onnx.ml::TreeEnsemble":
        plain = attr(node, "membership_values") is None
        known = attr(node, "post_transform") in range(4)
        return plain and known and is_batch(node) and node.required(0).dtype in FLOATS
    return is_batch(node) and can_transform(node)


def regressor(m: Making) -> None:
    """Scores of the targets."""
    scores, _ = _named_scores(m, "target", int(_attr(m, "n_targets") or 1), ranked=False)
    m.replace(transformed(m, added(m, scores, _numbers(m, "base_values"))))


def classifier(m: Making) -> None:
    """Labels and scores of the classes; one score decides between two classes alone."""
    classes = num_classes(m.node, "classlabels_int64s")
    base = _numbers(m, "base_values")
    used = sorted({int(each) for each in _attr(m, "class_ids")})
    if classes == 2 and len(used) == 1:
        score, _ = _named_scores(m, "class", 1, ranked=False)
        score = added(m, score, None if base is None else base[-1:])
        weights = _numbers(m, "class_weights")
        share = weights is None or bool((weights >= 0).all())
        chosen = above(m, score, 0.5 if share else 0)
        m.replace(labelled(m, chosen, "classlabels_int64s"), two_sided(m, score, share=share))
        return
    # A class that no reached leaf votes for is never the answer, even if all others are < 0.
    scores, ranks = _named_scores(m, "class", max(classes, 1), ranked=base is None)
    scores = added(m, scores, base)
    chosen = best(m, scores if ranks is None else ranks)
    m.replace(labelled(m, chosen, "classlabels_int64s"), transformed(m, scores))


def ensemble(m: Making) -> None:
    """TreeEnsemble-5: nodes and leaves are numbered apart; leaves follow the nodes here."""
    x = m.node.required(0)
    features = np.asarray(_attr(m, "nodes_featureids"), np.int64)
    inner, leaves = len(features), len(_attr(m, "leaf_targetids"))
    nodes = _leaf_nodes(inner + leaves)
    missing = _attr(m, "nodes_missing_value_tracks_true")
    nodes[:inner, 0] = features
    nodes[:inner, 1] = [_ACCEPT[_MODES[int(mode)]] for mode in _attr(m, "nodes_modes")]
    if missing is not None:
        nodes[:inner, 1] |= np.where(np.asarray(missing) != 0, UNORDERED, 0)
    for column, ids, leafs in (
        (2, "nodes_truenodeids", "nodes_trueleafs"),
        (3, "nodes_falsenodeids", "nodes_falseleafs"),
    ):
        is_leaf = np.asarray(_attr(m, leafs)) != 0
        nodes[:inner, column] = np.asarray(_attr(m, ids)) + np.where(is_leaf, inner, 0)
    _check_nodes(m, nodes)
    splits = np.zeros(inner + leaves)
    splits[:inner] = np.asarray(_attr(m, "nodes_splits"))
    scores = m(
        "TreeScores",
        x,
        like(x, splits),
        nodes,
        np.asarray(_attr(m, "tree_roots"), np.int32),
        np.maximum(np.arange(inner + leaves + 1, dtype=np.int32) - inner, 0, dtype=np.int32),
        np.asarray(_attr(m, "leaf_targetids"), np.int32),
        like(x, np.asarray(_attr(m, "leaf_weights"))),
        num_targets=int(_attr(m, "n_targets") or 1),
        how=_HOW[int(_attr(m, "aggregate_function"))],
    )
    m.node.attrs["post_transform"] = TRANSFORMS[int(_attr(m, "post_transform"))]
    found = transformed(m, scores)
    m.replace(found if found.dtype is x.dtype else m("Cast", found, to=x.dtype))


def _attr(m: Making, name: str) -> Any:
    return attr(m.node, name)


def _numbers(m: Making, name: str) -> Array | None:
    """An attribute that may be given as a list or as a tensor."""
    tensor = _attr(m, f"{name}_as_tensor")
    return numbers(m.node, name) if tensor is None else np.asarray(tensor)


@dataclass(frozen=True, slots=True)
class _Names:
    """Where the nodes lie that are named by (tree, node): a number for each name, in order."""

    trees: Array
    nodes: Array
    keys: Array
    order: Array

    @staticmethod
    def of(trees: Array, nodes: Array) -> _Names:
        found = _Names(np.unique(trees), np.unique(nodes), np.empty(0), np.empty(0))
        keys = found._keys(trees, nodes)
        order = np.argsort(keys, kind="stable")
        return _Names(found.trees, found.nodes, keys[order], order)

    def places(self, trees: Array, nodes: Array) -> Array:
        """Where these lie, the last of a name; -1: nowhere."""
        if not len(self.keys):
            return np.full(len(trees), -1)
        wanted = self._keys(trees, nodes)
        at = np.searchsorted(self.keys, wanted, "right") - 1
        is_there = (at >= 0) & (wanted >= 0) & (self.keys[at] == wanted)
        return np.where(is_there, self.order[at], -1)

    def _keys(self, trees: Array, nodes: Array) -> Array:
        """A number of each name; -1 where no name has such a part."""
        ranks = [
            (np.minimum(np.searchsorted(known, given), len(known) - 1), known, given)
            for known, given in ((self.trees, trees), (self.nodes, nodes))
        ]
        is_known = np.logical_and.reduce([known[rank] == given for rank, known, given in ranks])
        return np.where(is_known, ranks[0][0] * len(self.nodes) + ranks[1][0], -1)


def _leaf_nodes(count: int) -> Array:
    """Nodes that all lead to themselves."""
    nodes = np.zeros((count, 4), np.int32)
    nodes[:, 2] = nodes[:, 3] = np.arange(count)
    return nodes


def _named_scores(
    m: Making, prefix: str, targets: int, *, ranked: bool
) -> tuple[Value, Value | None]:
    """Scores of the operators that name nodes by (tree, node)."""
    x = samples(m)
    trees, ids, true, false, features = _columns(m)
    names = _Names.of(trees, ids)
    modes = _attr(m, "nodes_modes")
    nodes = _leaf_nodes(len(trees))
    inner = np.array([mode != "LEAF" for mode in modes])
    nodes[:, 0] = np.where(inner, features, 0)
    nodes[:, 1] = [_ACCEPT[mode] for mode in modes]
    missing = _attr(m, "nodes_missing_value_tracks_true")
    if missing:
        nodes[:, 1] |= np.where(inner & (np.asarray(missing) != 0), UNORDERED, 0)
    for column, branches in ((2, true), (3, false)):
        nodes[inner, column] = names.places(trees[inner], branches[inner])
    _check_nodes(m, nodes)
    roots = np.sort(np.unique(trees, return_index=True)[1])
    splits = _numbers(m, "nodes_values")
    leaves = _votes(m, prefix, names, one=targets == 1)
    made = m.all(
        "TreeScores",
        x,
        like(x, np.zeros(len(trees)) if splits is None else splits),
        nodes,
        roots.astype(np.int32),
        *leaves[:2],
        like(x, leaves[2]),
        outputs=2 if ranked else 1,
        num_targets=targets,
        how=_attr(m, "aggregate_function") if prefix == "target" else "SUM",
    )
    return made[0], made[1] if ranked else None


def _columns(m: Making) -> list[Array]:
    """Trees, nodes, branches on true and false, features, of all nodes."""
    keys = ("treeids", "nodeids", "truenodeids", "falsenodeids", "featureids")
    columns = [np.asarray(_attr(m, f"nodes_{key}"), np.int64) for key in keys]
    count = len(_attr(m, "nodes_modes"))
    for key, column in zip(keys, columns, strict=True):
        if len(column) != count:
            raise InvalidModel(
                f"{m.node.label}: nodes_{key} has {len(column)} items; expected {count}, as "
                "nodes_modes has"
            )
    return columns


def _votes(m: Making, prefix: str, names: _Names, *, one: bool) -> tuple[Array, Array, Array]:
    """Where each node's votes start, their targets and weights, in the order of the file."""
    columns = (_attr(m, f"{prefix}_{name}") for name in ("treeids", "nodeids", "ids"))
    weights = _numbers(m, f"{prefix}_weights")
    trees, nodes, targets = (np.asarray(column) for column in columns)
    at = names.places(trees, nodes)
    if (at < 0).any():
        lost = int(np.flatnonzero(at < 0)[0])
        raise InvalidModel(
            f"{m.node.label}: {prefix}_nodeids[{lost}] is node {nodes[lost]} of tree "
            f"{trees[lost]}, which the ensemble does not have"
        )
    order = np.argsort(at, kind="stable")
    if prefix == "target" and one:
        # Of one target a leaf's first weight counts, in onnxruntime and for skl2onnx's paths
        # through a tree, which repeat it for every class.
        order = order[np.unique(at[order], return_index=True)[1]]
    starts = np.searchsorted(at[order], np.arange(len(names.order) + 1)).astype(np.int32)
    targets = np.zeros_like(targets) if one else targets
    given = np.zeros(len(at)) if weights is None else weights
    return starts, targets[order].astype(np.int32), given[order]


def _check_nodes(m: Making, nodes: Array) -> None:
    """Native code follows branches and reads features without looking."""
    lost = np.flatnonzero(((nodes[:, 2:] < 0) | (nodes[:, 2:] >= len(nodes))).any(1))
    if lost.size:
        raise InvalidModel(f"{m.node.label}: node {lost[0]} branches to a node that is not there")
    least = int(nodes[:, 0].min(initial=0))
    if least < 0:  # too large ones are the shape rule's to refuse
        raise InvalidModel(f"{m.node.label}: a node asks for feature {least}; expected 0 or more")

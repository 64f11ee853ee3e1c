"""ai.onnx.ml: tree ensembles, walked for all samples at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tuili.ops.ml.scores import (
    TRANSFORMS,
    class_count,
    classified,
    labels,
    matrix,
    need_features,
    rows_of,
    transform,
    two_sided,
)
from tuili.ops.op import REQUIRED, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array

_MODES = (
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
    "BRANCH_MEMBER",
    "LEAF",
)
_MEMBER, _LEAF = 6, 7
_SUM, _AVERAGE, _MIN, _MAX = "SUM", "AVERAGE", "MIN", "MAX"


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees as flat arrays; a node's children are indices of nodes."""

    roots: Array
    modes: Array  # index into _MODES
    features: Array
    splits: Array
    missing: Array  # NaN goes to the true branch
    true: Array
    false: Array
    members: dict[int, Array]

    def leaves(self, x: Array) -> Array:
        """The leaf that each sample reaches in each tree: [N, trees]."""
        at = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        rows = np.arange(len(x))[:, None]
        while True:
            inner = self.modes[at] != _LEAF
            if not inner.any():
                return at
            value = x[rows, self.features[at]]
            taken = self._decide(at, value)
            step = np.where(taken, self.true[at], self.false[at])
            at = np.where(inner, step, at)

    def _decide(self, at: Array, value: Array) -> Array:
        split = self.splits[at].astype(value.dtype)
        modes = self.modes[at]
        tests = (
            value <= split,
            value < split,
            value >= split,
            value > split,
            value == split,
            value != split,
        )
        taken = np.choose(np.minimum(modes, _MEMBER - 1), tests)
        for node, members in self.members.items():
            taken = np.where(at == node, np.isin(value, members), taken)
        return np.where(np.isnan(value), self.missing[at].astype(bool), taken)


def _numbers(attrs: dict[str, Any], name: str, default: Any = ()) -> Array:
    tensor = attrs.get(f"{name}_as_tensor")
    if tensor is not None:
        return np.asarray(tensor)
    return np.asarray(attrs.get(name) or default, np.float32)


def _forest(attrs: dict[str, Any]) -> tuple[Forest, dict[tuple[int, int], int]]:
    """The trees of the classifier and the regressor, which name nodes by (tree, node)."""
    names = list(zip(attrs["nodes_treeids"], attrs["nodes_nodeids"], strict=True))
    places = {name: index for index, name in enumerate(names)}
    count = len(names)

    def children(key: str) -> Array:
        pairs = zip(attrs["nodes_treeids"], attrs[key], strict=True)
        return np.array([places.get(pair, 0) for pair in pairs], np.int64)

    roots: dict[int, int] = {}
    for index, (tree, _) in enumerate(names):
        roots.setdefault(tree, index)
    return Forest(
        np.array(list(roots.values())),
        np.array([_MODES.index(mode) for mode in attrs["nodes_modes"]]),
        np.array(attrs["nodes_featureids"], np.int64),
        _numbers(attrs, "nodes_values"),
        np.array(attrs["nodes_missing_value_tracks_true"] or np.zeros(count, int)),
        children("nodes_truenodeids"),
        children("nodes_falsenodeids"),
        {},
    ), places


def _aggregate(
    leaves: Array,
    weights: list[list[tuple[int, float]]],
    targets: int,
    how: str,
    dtype: np.dtype[Any],
) -> Array:
    """Scores [N, targets] from what the reached leaves give."""
    start = {_MIN: np.inf, _MAX: -np.inf}.get(how, 0.0)
    combine = {_MIN: np.minimum, _MAX: np.maximum}.get(how, np.add)
    table = np.full((len(weights), targets), start, dtype)
    for leaf, pairs in enumerate(weights):
        for target, weight in pairs:
            table[leaf, target] = combine(table[leaf, target], weight)
    gathered = table[leaves]
    # One tree after the other, in the element type: that settles ties as other engines do.
    result = np.full((len(leaves), targets), start, dtype)
    for tree in range(leaves.shape[1]):
        result = combine(result, gathered[:, tree])
    if how == _AVERAGE:
        result = result / dtype.type(leaves.shape[1])
    return np.where(np.isfinite(result), result, 0)


def _leaf_weights(
    attrs: dict[str, Any], prefix: str, places: dict[tuple[int, int], int]
) -> list[list[tuple[int, float]]]:
    result: list[list[tuple[int, float]]] = [[] for _ in places]
    columns = (attrs[f"{prefix}_{name}"] for name in ("treeids", "nodeids", "ids"))
    weights = _numbers(attrs, f"{prefix}_weights").astype(np.float64)
    for tree, node, target, weight in zip(*columns, weights, strict=True):
        result[places[tree, node]].append((target, float(weight)))
    return result


def _regressor(X: Array, **attrs: Any) -> Array:
    forest, places = _forest(attrs)
    targets = attrs["n_targets"] or 1
    weights = _leaf_weights(attrs, "target", places)
    if targets == 1:
        weights = [leaf[:1] for leaf in weights]  # as onnxruntime: see passes/ml/trees.py
    x = matrix(X)
    scores = _aggregate(forest.leaves(x), weights, targets, attrs["aggregate_function"], x.dtype)
    base = _numbers(attrs, "base_values")
    scores = scores + base if base.size else scores
    return transform(scores, attrs["post_transform"])


def _classifier(X: Array, **attrs: Any) -> tuple[Array, Array]:
    forest, places = _forest(attrs)
    numbers, words = attrs["classlabels_int64s"], attrs["classlabels_strings"]
    classes = len(numbers or words or ())
    weights = _leaf_weights(attrs, "class", places)
    x = matrix(X)
    leaves = forest.leaves(x)
    scores = _aggregate(leaves, weights, max(classes, 1), _SUM, x.dtype)
    base = _numbers(attrs, "base_values")
    used = sorted(set(attrs["class_ids"]))
    if classes == 2 and len(used) == 1:
        score = scores[:, used]
        score = score + base[-1] if base.size else score
        share = bool((_numbers(attrs, "class_weights") >= 0).all())
        chosen = (score[:, 0] > (0.5 if share else 0)).astype(np.int64)
        both = two_sided(score, attrs["post_transform"], share=share)
        return labels(chosen, numbers, words), both
    if base.size:
        scores = scores + base
        ranked = scores
    else:
        # A class that no reached leaf votes for is never the answer, even if all others are < 0.
        votes = np.array(
            [[any(t == c for t, _ in leaf) for c in range(classes)] for leaf in weights]
        )
        ranked = np.where(votes[leaves].any(1), scores, -np.inf)
    return labels(ranked.argmax(1), numbers, words), transform(scores, attrs["post_transform"])


def _need_read(site: Site) -> None:
    """The features that inner nodes read."""
    features = site.attr("nodes_featureids")
    modes = site.attr("nodes_modes")
    read = [f for f, mode in zip(features, modes, strict=False) if mode != "LEAF"]
    need_features(site, int(max(read, default=0)) + 1, or_more=True)


def _regressor_shape(site: Site) -> list[Result]:
    rows = rows_of(site)
    _need_read(site)
    return [(rows, site.attr("n_targets") or 1)]


def _classifier_shape(site: Site) -> list[Result]:
    rows_of(site)
    _need_read(site)
    return classified(
        site, "classlabels_int64s", max(class_count(site.attr, "classlabels_int64s"), 1)
    )


# -- TreeEnsemble-5 ------------------------------------------------------------------------


def _member_sets(attrs: dict[str, Any], modes: Array) -> dict[int, Array]:
    """The sets of the membership nodes, which a NaN ends."""
    values = attrs["membership_values"]
    if values is None:
        return {}
    flat = np.asarray(values)
    ends = np.flatnonzero(np.isnan(flat))
    sets = np.split(flat, ends)
    nodes = np.flatnonzero(modes == _MEMBER).tolist()
    return {node: part[~np.isnan(part)] for node, part in zip(nodes, sets, strict=False)}


def _tree_ensemble(X: Array, **attrs: Any) -> Array:
    inner = len(attrs["nodes_featureids"])
    leaves = len(attrs["leaf_targetids"])

    def children(ids: str, leafs: str) -> Array:
        place, is_leaf = np.asarray(attrs[ids]), np.asarray(attrs[leafs])
        return np.concatenate([np.where(is_leaf, place + inner, place), np.zeros(leaves, int)])

    modes = np.concatenate([np.asarray(attrs["nodes_modes"], int), np.full(leaves, _LEAF)])
    tail = np.zeros(leaves, int)
    missing = attrs["nodes_missing_value_tracks_true"] or np.zeros(inner, int)
    forest = Forest(
        np.asarray(attrs["tree_roots"]),
        modes,
        np.concatenate([np.asarray(attrs["nodes_featureids"]), tail]),
        np.concatenate([np.asarray(attrs["nodes_splits"], np.float64), tail]),
        np.concatenate([np.asarray(missing), tail]),
        children("nodes_truenodeids", "nodes_trueleafs"),
        children("nodes_falsenodeids", "nodes_falseleafs"),
        _member_sets(attrs, modes),
    )
    weights: list[list[tuple[int, float]]] = [[] for _ in range(inner)]
    for target, weight in zip(attrs["leaf_targetids"], attrs["leaf_weights"], strict=True):
        weights.append([(int(target), float(weight))])
    how = (_AVERAGE, _SUM, _MIN, _MAX)[attrs["aggregate_function"]]
    scores = _aggregate(forest.leaves(X), weights, attrs["n_targets"] or 1, how, X.dtype)
    return transform(scores, TRANSFORMS[attrs["post_transform"]])


_NODES: dict[str, Any] = {
    "base_values": None,
    "base_values_as_tensor": None,
    "nodes_falsenodeids": REQUIRED,
    "nodes_featureids": REQUIRED,
    "nodes_hitrates": None,
    "nodes_hitrates_as_tensor": None,
    "nodes_missing_value_tracks_true": None,
    "nodes_modes": REQUIRED,
    "nodes_nodeids": REQUIRED,
    "nodes_treeids": REQUIRED,
    "nodes_truenodeids": REQUIRED,
    "nodes_values": None,
    "nodes_values_as_tensor": None,
    "post_transform": "NONE",
}

ROWS = (
    op(
        "ai.onnx.ml::TreeEnsembleRegressor",
        "X",
        "Y:f32",
        _regressor_shape,
        _regressor,
        attrs={
            **_NODES,
            "aggregate_function": _SUM,
            "n_targets": None,
            "target_ids": REQUIRED,
            "target_nodeids": REQUIRED,
            "target_treeids": REQUIRED,
            "target_weights": None,
            "target_weights_as_tensor": None,
        },
    ),
    op(
        "ai.onnx.ml::TreeEnsembleClassifier",
        "X",
        "Y:any Z:f32",
        _classifier_shape,
        _classifier,
        attrs={
            **_NODES,
            "class_ids": REQUIRED,
            "class_nodeids": REQUIRED,
            "class_treeids": REQUIRED,
            "class_weights": None,
            "class_weights_as_tensor": None,
            "classlabels_int64s": None,
            "classlabels_strings": None,
        },
    ),
    op(
        "ai.onnx.ml::TreeEnsemble",
        "X",
        "Y",
        _regressor_shape,
        _tree_ensemble,
        attrs={
            "aggregate_function": 1,
            "leaf_targetids": REQUIRED,
            "leaf_weights": REQUIRED,
            "membership_values": None,
            "n_targets": None,
            "nodes_falseleafs": REQUIRED,
            "nodes_falsenodeids": REQUIRED,
            "nodes_featureids": REQUIRED,
            "nodes_hitrates": None,
            "nodes_missing_value_tracks_true": None,
            "nodes_modes": REQUIRED,
            "nodes_splits": REQUIRED,
            "nodes_trueleafs": REQUIRED,
            "nodes_truenodeids": REQUIRED,
            "post_transform": 0,
            "tree_roots": REQUIRED,
        },
    ),
)

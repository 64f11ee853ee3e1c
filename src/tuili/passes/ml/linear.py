"""Linear models and support vector machines of ai.onnx.ml in core operators."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.passes.making import Making
from tuili.passes.ml.scores import (
    above,
    added,
    as_f32,
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


def is_linear(node: Node) -> bool:
    """Whether the width of the samples is known and the model can be spelt out."""
    return is_batch(node) and can_transform(node) and isinstance(node.required(0).shape[-1], int)


def _linear_scores(m: Making, targets: int) -> Value:
    x = samples(m)
    weights = like(x, numbers(m.node, "coefficients")).reshape(targets, -1)
    return added(m, m("MatMul", x, np.ascontiguousarray(weights.T)), numbers(m.node, "intercepts"))


def linear_regressor(m: Making) -> None:
    """x W' + b."""
    m.replace(transformed(m, _linear_scores(m, int(_attr(m, "targets")))))


def linear_classifier(m: Making) -> None:
    """The best of several scores, or the sign of one."""
    width: Any = m.node.required(0).shape[-1]
    count = len(_attr(m, "coefficients")) // width
    scores = _linear_scores(m, count)
    if count > 1:
        m.replace(labelled(m, best(m, scores), "classlabels_ints"), transformed(m, scores))
        return
    chosen = above(m, scores, 0)
    if num_classes(m.node, "classlabels_ints") == 2:
        named = labelled(m, chosen, "classlabels_ints")
        m.replace(named, two_sided(m, scores, share=True))
    else:
        m.replace(chosen, transformed(m, scores))


def _kernel(m: Making, x: Value, vectors: Array, kind: str) -> Value:
    """How alike samples and support vectors are: [N, vectors]."""
    gamma, coef0, degree = (*(_attr(m, "kernel_params") or ()), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        distance = m("com.microsoft::CDist", x, vectors, metric="sqeuclidean")
        return m("Exp", m("Mul", distance, like(x, -gamma)))
    product = m("MatMul", x, np.ascontiguousarray(vectors.T))
    if kind == "LINEAR":
        return product
    inner = m("Add", m("Mul", product, like(x, gamma)), like(x, coef0))
    return m("Tanh", inner) if kind == "SIGMOID" else m("Pow", inner, like(x, degree))


def svm_regressor(m: Making) -> None:
    """A weighted sum of kernels; of one class, its sign."""
    x = samples(m)
    weights = like(x, numbers(m.node, "coefficients"))
    if _attr(m, "n_supports"):
        vectors = like(x, numbers(m.node, "support_vectors")).reshape(len(weights), -1)
        alike = _kernel(m, x, vectors, str(_attr(m, "kernel_type")))
        scores = m("MatMul", alike, weights[:, None])
    else:
        scores = m("MatMul", x, weights[:, None])
    scores = m("Add", scores, like(x, _attr(m, "rho")[0]))
    if _attr(m, "one_class"):
        inside = m("Greater", scores, like(x, 0))
        m.replace(as_f32(m, m("Where", inside, like(x, 1), like(x, -1))))
    else:
        m.replace(transformed(m, scores))


def svm_classifier(m: Making) -> None:
    """One against one with votes, or one score per class."""
    x = samples(m)
    classes = max(num_classes(m.node, "classlabels_ints"), 1)
    if _attr(m, "vectors_per_class"):
        scores = _duels(m, x)
        ranks = _votes(m, scores, len(_attr(m, "vectors_per_class")))
    else:
        weights = like(x, numbers(m.node, "coefficients")).reshape(classes, -1)
        scores = m("Add", _kernel(m, x, weights, "LINEAR"), like(x, _attr(m, "rho")[0]))
        ranks = scores
    named = labelled(m, best(m, ranks), "classlabels_ints")
    if _attr(m, "vectors_per_class") and _attr(m, "prob_a"):
        m.replace(named, as_f32(m, _odds(m, scores, classes)))
        return
    columns: Any = scores.shape[1]
    found = transformed(m, scores) if columns > 1 else two_sided(m, scores, share=False)
    m.replace(named, found)


def _odds(m: Making, scores: Value, classes: int) -> Value:
    """Class probabilities from the scores of pairs, by Platt's sigmoid of each."""
    slope, shift = (-like(scores, numbers(m.node, name)) for name in ("prob_a", "prob_b"))
    pairs = m("Sigmoid", m("Add", m("Mul", scores, slope), shift))
    inside = m("Clip", pairs, like(scores, 1e-7), like(scores, 1 - 1e-7))
    return m("CoupledPairs", inside, classes=classes)


def _duels(m: Making, x: Value) -> Value:
    """The score of every pair of classes, as one product with the kernels."""
    counts: Any = _attr(m, "vectors_per_class")
    ends = np.cumsum([0, *counts])
    total = int(ends[-1])
    vectors = like(x, numbers(m.node, "support_vectors")).reshape(total, -1)
    weights = like(x, numbers(m.node, "coefficients")).reshape(-1, total)
    pairs = list(combinations(range(len(counts)), 2))
    mixed = like(x, np.zeros((total, len(pairs))))
    for column, (i, j) in enumerate(pairs):
        first, second = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        mixed[first, column] = weights[j - 1, first]
        mixed[second, column] = weights[i, second]
    alike = _kernel(m, x, vectors, str(_attr(m, "kernel_type")))
    rho = like(x, _attr(m, "rho"))[: len(pairs)]
    return m("Add", m("MatMul", alike, mixed), rho)


def _votes(m: Making, scores: Value, classes: int) -> Value:
    """How many pairs each class wins."""
    pairs = list(combinations(range(classes), 2))
    winner, loser = np.zeros((2, len(pairs), classes), scores.dtype.numpy)
    for row, (i, j) in enumerate(pairs):
        winner[row, i] = loser[row, j] = 1
    won = m("Cast", m("Greater", scores, like(scores, 0)), to=scores.dtype)
    lost = m("Sub", like(scores, 1), won)
    return m("Add", m("MatMul", won, winner), m("MatMul", lost, loser))


def _attr(m: Making, name: str) -> Any:
    return attr(m.node, name)

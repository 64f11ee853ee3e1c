"""ai.onnx.ml: linear models and support vector machines."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.ml.scores import (
    class_count,
    classified,
    labels,
    matrix,
    need_features,
    rows_of,
    transform,
    two_sided,
)
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array

# -- linear --------------------------------------------------------------------------------


def _linear_scores(x: Array, attrs: dict[str, Any], targets: int) -> Array:
    data = matrix(x)
    weights = np.asarray(attrs["coefficients"], data.dtype).reshape(targets, -1)
    scores = data @ weights.T
    if attrs["intercepts"]:
        scores = scores + np.asarray(attrs["intercepts"], data.dtype)
    return scores


def _linear_regressor(X: Array, **attrs: Any) -> Array:
    return transform(_linear_scores(X, attrs, attrs["targets"]), attrs["post_transform"])


def _linear_classifier(X: Array, **attrs: Any) -> tuple[Array, Array]:
    numbers, words = attrs["classlabels_ints"], attrs["classlabels_strings"]
    classes = len(numbers or words or ())
    width = matrix(X).shape[1]
    scores = _linear_scores(X, attrs, len(attrs["coefficients"]) // width)
    if scores.shape[1] > 1:
        chosen = scores.argmax(1)
        return labels(chosen, numbers, words), transform(scores, attrs["post_transform"])
    chosen = (scores[:, 0] > 0).astype(np.int64)
    if classes == 2:
        both = two_sided(scores, attrs["post_transform"], share=True)
        return labels(chosen, numbers, words), both
    return chosen, transform(scores, attrs["post_transform"])


def _linear_regressor_shape(site: Site) -> list[Result]:
    result: list[Result] = [(rows_of(site), site.attr("targets"))]
    need_features(site, len(site.attr("coefficients")) // site.attr("targets"))
    return result


def _linear_classifier_shape(site: Site) -> list[Result]:
    classes, count = class_count(site.attr, "classlabels_ints"), len(site.attr("coefficients"))
    rows_of(site)
    if classes != 2:  # two may have a score each, or one for both
        need_features(site, count // max(classes, 1))
    return classified(site, "classlabels_ints", max(classes, 1))


# -- support vectors -----------------------------------------------------------------------


def _kernel(x: Array, vectors: Array, attrs: dict[str, Any]) -> Array:
    parameters = (*(attrs["kernel_params"] or ()), 0.0, 0.0, 0.0)[:3]
    gamma, coef0, degree = np.asarray(parameters, x.dtype)
    match attrs["kernel_type"]:
        case "LINEAR":
            return x @ vectors.T
        case "POLY":
            return (gamma * (x @ vectors.T) + coef0) ** degree
        case "SIGMOID":
            return np.tanh(gamma * (x @ vectors.T) + coef0)
        case "RBF":
            distance = np.square(x[:, None] - vectors).sum(-1)
            return np.exp(-gamma * distance)
        case name:
            raise ValueError(f"unknown kernel_type {name!r}; expected LINEAR, POLY, RBF or SIGMOID")


def _svm_regressor(X: Array, **attrs: Any) -> Array:
    x = matrix(X)
    weights = np.asarray(attrs["coefficients"], x.dtype)
    if attrs["n_supports"]:
        vectors = np.asarray(attrs["support_vectors"], x.dtype).reshape(len(weights), -1)
        scores = _kernel(x, vectors, attrs) @ weights
    else:
        scores = _kernel(x, weights.reshape(1, -1), {**attrs, "kernel_type": "LINEAR"})[:, 0]
    scores = (scores + x.dtype.type(attrs["rho"][0]))[:, None]
    if attrs["one_class"]:
        return np.where(scores > 0, 1.0, -1.0)
    return transform(scores, attrs["post_transform"])


def _duels(x: Array, attrs: dict[str, Any]) -> tuple[Array, Array]:
    """The score of every pair of classes, and the votes that the pairs give."""
    counts = attrs["vectors_per_class"]
    total = sum(counts)
    ends = np.cumsum([0, *counts])
    vectors = np.asarray(attrs["support_vectors"], x.dtype).reshape(total, -1)
    weights = np.asarray(attrs["coefficients"], x.dtype).reshape(-1, total)
    kernel = _kernel(x, vectors, attrs)
    pairs = [(i, j) for i in range(len(counts)) for j in range(i + 1, len(counts))]
    scores = np.zeros((len(x), len(pairs)), x.dtype)
    votes = np.zeros((len(x), len(counts)))
    for index, (i, j) in enumerate(pairs):
        first, second = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        score = kernel[:, first] @ weights[j - 1, first] + kernel[:, second] @ weights[i, second]
        scores[:, index] = score + attrs["rho"][index]
        votes[:, i] += scores[:, index] > 0
        votes[:, j] += scores[:, index] <= 0
    return scores, votes


def coupling_rounds(classes: int) -> int:
    """The most rounds of the fixed point, as LIBSVM has them."""
    return max(100, classes)


def _coupled(pairs: Array, classes: int) -> Array:
    """Class probabilities from the probabilities of pairs (Wu, Lin, Weng 2004, method 2)."""
    r = np.zeros((len(pairs), classes, classes))
    places = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    for index, (i, j) in enumerate(places):
        r[:, i, j], r[:, j, i] = pairs[:, index], 1 - pairs[:, index]
    result = np.zeros((len(pairs), classes))
    for row in range(len(pairs)):
        result[row] = _fixed_point(r[row], classes)
    return result


def _fixed_point(r: Array, classes: int) -> Array:
    q = -r.T * r
    np.fill_diagonal(q, (r * r).sum(0))
    p = np.full(classes, 1 / classes)
    for _ in range(coupling_rounds(classes)):
        qp = q @ p
        level = p @ qp
        if np.abs(qp - level).max() < 0.005 / classes:
            break
        for t in range(classes):
            step = (level - qp[t]) / q[t, t]
            p[t] += step
            level = (level + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            qp = (qp + step * q[t]) / (1 + step)
            p /= 1 + step
    return p


def _svm_classifier(X: Array, **attrs: Any) -> tuple[Array, Array]:
    numbers, words = attrs["classlabels_ints"], attrs["classlabels_strings"]
    classes = max(len(numbers or words or ()), 1)
    x = matrix(X)
    votes: Array | None = None
    if attrs["vectors_per_class"]:
        scores, votes = _duels(x, attrs)
        if attrs["prob_a"]:
            a, b = np.asarray(attrs["prob_a"]), np.asarray(attrs["prob_b"])
            odds = 1 / (1 + np.exp(scores * a + b))
            odds = _coupled(np.clip(odds, 1e-7, 1 - 1e-7), classes)
            return labels(votes.argmax(1), numbers, words), odds
    else:
        weights = np.asarray(attrs["coefficients"], x.dtype).reshape(classes, -1)
        scores = _kernel(x, weights, {**attrs, "kernel_type": "LINEAR"}) + attrs["rho"][0]
    chosen = (scores if votes is None else votes).argmax(1)
    if scores.shape[1] > 1:
        return labels(chosen, numbers, words), transform(scores, attrs["post_transform"])
    return labels(chosen, numbers, words), two_sided(scores, attrs["post_transform"], share=False)


def _svm_features(site: Site, vectors: int, otherwise: int) -> None:
    """As wide as a support vector; without any, as what is multiplied with X."""
    rows_of(site)
    if vectors:
        need_features(site, len(site.attr("support_vectors")) // vectors)
    else:
        need_features(site, len(site.attr("coefficients")) // otherwise)


def _svm_regressor_shape(site: Site) -> list[Result]:
    _svm_features(site, site.attr("n_supports"), 1)
    return [(rows_of(site), 1)]


def _svm_classifier_shape(site: Site) -> list[Result]:
    classes = class_count(site.attr, "classlabels_ints")
    _svm_features(site, sum(site.attr("vectors_per_class") or ()), max(classes, 1))
    if site.attr("vectors_per_class") and not site.attr("prob_a"):
        columns = classes * (classes - 1) // 2
        return classified(site, "classlabels_ints", 2 if columns == 1 else columns)
    return classified(site, "classlabels_ints", 2 if classes == 1 else classes)


def _row(name: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"ai.onnx.ml::{name}", "X", outputs, infer, meaning, attrs=attrs)


_CLASSES = {"classlabels_ints": None, "classlabels_strings": None, "post_transform": "NONE"}
_SVM = {
    "coefficients": REQUIRED,
    "kernel_params": None,
    "kernel_type": "LINEAR",
    "rho": REQUIRED,
    "support_vectors": None,
}

ROWS = (
    op(
        "CoupledPairs",
        "pairs",
        "odds",
        lambda site: [(site.shape(0)[0], site.attr("classes"))],
        lambda pairs, classes: _coupled(pairs, classes).astype(pairs.dtype),
        attrs={"classes": REQUIRED},
        allow="float",
    ),
    _row(
        "LinearRegressor",
        "Y:f32",
        _linear_regressor_shape,
        _linear_regressor,
        coefficients=REQUIRED,
        intercepts=None,
        post_transform="NONE",
        targets=1,
    ),
    _row(
        "LinearClassifier",
        "Y:any Z:f32",
        _linear_classifier_shape,
        _linear_classifier,
        **_CLASSES,
        coefficients=REQUIRED,
        intercepts=None,
        multi_class=0,
    ),
    _row(
        "SVMRegressor",
        "Y:f32",
        _svm_regressor_shape,
        _svm_regressor,
        **_SVM,
        n_supports=0,
        one_class=0,
        post_transform="NONE",
    ),
    _row(
        "SVMClassifier",
        "Y:any Z:f32",
        _svm_classifier_shape,
        _svm_classifier,
        **_CLASSES,
        **_SVM,
        prob_a=None,
        prob_b=None,
        vectors_per_class=None,
    ),
)

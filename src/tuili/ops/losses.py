"""Losses that inference graphs may hold: negative log-likelihood and softmax cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ops.normalization import log_softmax
from tuili.ops.op import Result, op
from tuili.ops.site import Site
from tuili.tensors import Array


def _loss_shape(site: Site) -> list[Result]:
    batch, classes, *inner = site.shape(0)
    site.same_shape(site.shape(1), (batch, *inner), "a label for each row of scores")
    if site.has(2):
        site.same_shape(site.shape(2), (classes,), "a weight for each class")
    loss = site.shape(1) if site.attr("reduction") == "none" else ()
    results: list[Result] = [loss, site.shape(0)]
    return results[: len(site.op.outputs)]


def _nll(
    log_odds: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int | None,
    reduction: str,
) -> Array:
    kept = np.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    labels = np.where(kept, target, 0).astype(np.int64)
    picked = np.take_along_axis(log_odds, np.expand_dims(labels, 1), 1).squeeze(1)
    weights = kept.astype(log_odds.dtype) if weight is None else np.where(kept, weight[labels], 0)
    losses = -picked * weights
    match reduction:
        case "none":
            return losses
        case "sum":
            return losses.sum()
        case _:
            return losses.sum() / weights.sum()


def _cross_entropy(scores: Array, labels: Array, weights: Array | None = None, **attrs: Any) -> Any:
    odds = log_softmax(scores, 1)
    return _nll(odds, labels, weights, **attrs), odds


_ATTRS = {"ignore_index": None, "reduction": "mean"}

ROWS = (
    op(
        "NegativeLogLikelihoodLoss",
        "input target:I weight?",
        "loss",
        _loss_shape,
        _nll,
        attrs=_ATTRS,
        allow={"T": "float", "I": "index"},
    ),
    op(
        "SoftmaxCrossEntropyLoss",
        "scores labels:I weights?",
        "output log_prob",
        _loss_shape,
        _cross_entropy,
        attrs=_ATTRS,
        allow={"T": "float", "I": "index"},
    ),
)

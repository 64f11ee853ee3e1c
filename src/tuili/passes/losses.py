"""Losses become core operators: the score of each label is picked, weighted and summed."""

from __future__ import annotations

import numpy as np

from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.passes.making import Making, is_known
from tuili.tensors import DType

CLASSES = np.array([1], np.int64)  # the axis of scores along which the classes lie


def is_loss(node: Node) -> bool:
    """Whether the shapes are known and the scores are of a type that reductions run in."""
    known = all(map(is_known, (*node.inputs, *node.outputs)))
    return known and node.required(0).dtype in (DType.F32, DType.F64)


def log_likelihood(m: Making) -> None:
    """NegativeLogLikelihoodLoss-13."""
    m.replace(_loss(m, m.node.required(0)))


def cross_entropy(m: Making) -> None:
    """SoftmaxCrossEntropyLoss-13: the loss, and what it took the logarithms to be."""
    odds = m("LogSoftmax", m.node.required(0), axis=1)
    m.replace(*(_loss(m, odds), odds)[: len(m.node.outputs)])


def _loss(m: Making, odds: Value) -> Value:
    labels, kept = _labels(m)
    column = m("Unsqueeze", labels, CLASSES)
    picked = m("Squeeze", m("GatherElements", odds, column, axis=1), CLASSES)
    losses, weights = m("Neg", picked), _weights(m, labels, kept)
    if weights is not None:
        losses = m("Mul", losses, weights)
    match attr(m.node, "reduction"):
        case "none":
            return losses
        case "sum":
            return m("ReduceSum", losses, keepdims=0)
        case _ if weights is None:
            return m("ReduceMean", losses, keepdims=0)
        case _:
            return m("Div", *(m("ReduceSum", each, keepdims=0) for each in (losses, weights)))


def _labels(m: Making) -> tuple[Value, Value | None]:
    """The labels, 0 for those that are ignored, and which are not; None: all count."""
    labels, ignored = m.node.required(1), attr(m.node, "ignore_index")
    if ignored is None:
        return labels, None
    kind = labels.dtype.numpy
    kept = m("Not", m("Equal", labels, np.array(ignored, kind)))
    return m("Where", kept, labels, np.array(0, kind)), kept


def _weights(m: Making, labels: Value, kept: Value | None) -> Value | None:
    """What each label counts; None: all of them one."""
    weights, kind = m.node.input(2), m.node.required(0).dtype
    if weights is None:
        return None if kept is None else m("Cast", kept, to=kind)
    each = m("Gather", weights, labels)
    return each if kept is None else m("Where", kept, each, np.array(0, kind.numpy))

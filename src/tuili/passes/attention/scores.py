"""Scores of attention: what a product of queries and keys is scaled by and has added to it.

Position biases and masks are added one after another (T5, LayoutLM), and the sum may be scaled
again (CogView); all of it becomes one scale and one mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.infer import infer_node
from tuili.passes.attention.operands import unscaled
from tuili.tensors import DType, broadcast_dim


@dataclass(frozen=True, slots=True)
class Term:
    """What is added to the product, times a number."""

    value: Value
    factor: float


@dataclass(frozen=True, slots=True)
class Scores:
    """q @ k * scale + terms."""

    product: Node
    scale: float
    terms: tuple[Term, ...]


def scores_of(value: Value) -> Scores | None:
    """The value as scores; None where it is none, or is read elsewhere too."""
    factor, terms = 1.0, list[Term]()
    while only_use(value):
        inner, number = unscaled(value)
        if inner is not value:
            value, factor = inner, factor * number
            continue
        parts = _sum_of(value)
        if parts is None:
            break
        value, added = parts
        terms.append(Term(added, factor))
    product = value.producer
    if product is None or not is_matmul(product) or not only_use(value):
        return None
    fits = all(_broadcasts(term.value, product.output) for term in terms)
    return Scores(product, factor, tuple(terms)) if fits else None


def only_use(value: Value) -> bool:
    """Whether one node reads the value, once, and it is no output."""
    return len(value.uses) == 1 and not value.is_output


def is_matmul(node: Node) -> bool:
    """Whether the node multiplies two f32 tensors with batch and heads, and nothing else."""
    plain = node.op == "MatMul" and len(node.inputs) <= 3 and node.input(2) is None
    operands = (node.required(0), node.required(1)) if plain else ()
    return plain and all(v.dtype is DType.F32 and len(v.tensor.shape or ()) == 4 for v in operands)


def _sum_of(value: Value) -> tuple[Value, Value] | None:
    """The operand that leads to a product, and the other."""
    node = value.producer
    if node is None or node.op != "Add":
        return None
    left, right = node.required(0), node.required(1)
    return (left, right) if _leads_to_product(left) else (right, left)


def _leads_to_product(value: Value) -> bool:
    node = value.producer
    if node is None or not only_use(value):
        return False
    if node.op == "Add":
        return any(_leads_to_product(each) for each in (node.required(0), node.required(1)))
    inner, _ = unscaled(value)
    return node.op == "MatMul" or (inner is not value and _leads_to_product(inner))


def _broadcasts(mask: Value, scores: Value) -> bool:
    """Whether the mask is f32 and every axis of it is 1 or that of the scores."""
    if mask.dtype is not DType.F32 or mask.tensor.shape is None or len(mask.shape) > 4:
        return False
    wanted = scores.shape[4 - len(mask.shape) :]
    return all(broadcast_dim(a, b) == b for a, b in zip(mask.shape, wanted, strict=True))


def mask_of(graph: Graph, scores: Scores, before: Node) -> Value | None:
    """One mask for all terms; sums and products of them are written where they must be."""
    mask: Value | None = None
    for term in scores.terms:
        value = _times(graph, term, before)
        mask = value if mask is None else _made(graph, "Add", mask, value, before)
    return mask


def _times(graph: Graph, term: Term, before: Node) -> Value:
    if term.factor == 1.0:
        return term.value
    factor = graph.add_constant(np.array(term.factor, np.float32))
    return _made(graph, "Mul", term.value, factor, before)


def _made(graph: Graph, op: str, left: Value, right: Value, before: Node) -> Value:
    node = graph.add(op, [left, right], before=before)
    infer_node(node, Contents())
    return node.output

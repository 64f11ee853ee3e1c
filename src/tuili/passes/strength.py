"""Strength reduction: expensive arithmetic as cheaper arithmetic, one row each."""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, TensorType
from tuili.ops.contents import Contents
from tuili.passes.patterns import Match, Rule, apply_rules
from tuili.tensors import DType


def reduce_strength(graph: Graph, contents: Contents) -> bool:
    """Apply every row, and turn divisions by constants into products."""
    changed = apply_rules(graph, RULES, contents)
    for node in graph.nodes:
        changed |= node.op == "Div" and _multiply_instead(graph, node)
    return changed


def _is_float(match: Match) -> bool:
    type_ = match["x"].type
    return isinstance(type_, TensorType) and type_.dtype is DType.F32


RULES: tuple[Rule, ...] = (
    Rule("square", "Pow(x, 2)", "Mul(x, x)"),
    Rule("cube", "Pow(x, 3)", "Mul(Mul(x, x), x)"),
    Rule("square root", "Pow(x, 0.5)", "Sqrt(x)", _is_float),
    Rule("inverse root", "Pow(x, -0.5)", "Reciprocal(Sqrt(x))", _is_float),
    Rule("inverse", "Pow(x, -1)", "Reciprocal(x)", _is_float),
    Rule("division of one", "Div(1, x)", "Reciprocal(x)", _is_float),
    Rule("swish", "Mul(x, Sigmoid(x))", "Swish(x)", _is_float),
)


def _multiply_instead(graph: Graph, node: Node) -> bool:
    """x / c as x * (1 / c), which is off by half a unit in the last place at most."""
    divisor = node.required(1).constant
    if divisor is None or divisor.dtype != np.float32 or node.required(0).is_constant:
        return False
    with np.errstate(all="ignore"):
        inverse = (1 / divisor.astype(np.float64)).astype(np.float32)
    if not np.all(np.isfinite(inverse) & (np.abs(inverse) >= np.finfo(np.float32).tiny)):
        return False
    node.op = "Mul"
    node.set_input(1, graph.add_constant(inverse, f"{node.output.name}_inverse"))
    return True

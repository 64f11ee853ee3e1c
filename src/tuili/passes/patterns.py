"""Patterns: expressions over operators, written as text, found in graphs and replaced.

    Mul(x, Sigmoid(x))                     a name is any value; the same name is the same value
    Div(x, 1.41421356)                     a number is a constant of that one value (to 1e-4)
    ReduceMean(x, axes=LAST, keepdims=1)   attributes and axes inputs; LAST and SPATIAL are `_AXES`
    LayerNormalization(x, s, b, epsilon=e) in a replacement, `e` is the number that `e` matched,
                                           and `ONES` a vector of ones for the last axis of `x`

Add, Mul, Max and Min match with their operands in either order.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tuili.errors import InternalError
from tuili.ir import Attr, Graph, Node, TensorType, Value
from tuili.ops.contents import Contents
from tuili.ops.infer import infer_node
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.tensors import evaluate

COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})
TOLERANCE = 1e-4

Match = dict[str, Value]
Condition = Callable[[Match], bool]


def _anything(match: Match) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` becomes `replacement` where `condition` holds for what the names matched."""

    name: str
    pattern: str
    replacement: str
    condition: Condition = _anything


def apply_rules(graph: Graph, rules: tuple[Rule, ...], contents: Contents) -> bool:
    """Replace every match of every rule; the rule that comes first wins."""
    by_root = _parsed(rules)
    changed = False
    for node in reversed(graph.nodes):
        for nested in node.graphs():
            changed |= apply_rules(nested, rules, contents)
        for rule, pattern, replacement in by_root.get(node.op, ()):
            match = next(_match_call(node, pattern, {}, contents), None)
            if match is not None and rule.condition(match):
                _replace(graph, node, replacement, match, contents)
                changed = True
                break
    return changed


@cache
def _parsed(rules: tuple[Rule, ...]) -> dict[str, list[tuple[Rule, ast.Call, ast.Call]]]:
    """The rules by the operator at the root of their pattern."""
    by_root: dict[str, list[tuple[Rule, ast.Call, ast.Call]]] = {}
    for rule in rules:
        pattern = _parse(rule.pattern)
        row = (rule, pattern, _parse(rule.replacement))
        by_root.setdefault(_name(pattern.func), []).append(row)
    return by_root


def _parse(text: str) -> ast.Call:
    tree = ast.parse(text.strip(), mode="eval").body
    assert isinstance(tree, ast.Call), text
    return tree


def _name(function: ast.expr) -> str:
    assert isinstance(function, ast.Name)
    return function.id


# -- matching ----------------------------------------------------------------------------------


def _match(
    value: Value | None, pattern: ast.expr, match: Match, contents: Contents
) -> Iterator[Match]:
    match pattern:
        case ast.Constant() | ast.UnaryOp():
            if value is not None and _is_number(value, ast.literal_eval(pattern)):
                yield match
        case ast.Name(id=name):
            if value is not None and match.get(name, value) is value:
                yield {**match, name: value}
        case ast.Call():
            node = None if value is None else value.producer
            if node is not None and node.op == _name(pattern.func):
                yield from _match_call(node, pattern, match, contents)
        case _:
            raise InternalError(
                f"pattern has {ast.unparse(pattern)}; expected a call, name or number"
            )


def _match_call(node: Node, pattern: ast.Call, match: Match, contents: Contents) -> Iterator[Match]:
    fits = all(_has_attribute(node, word, contents) for word in pattern.keywords)
    if not fits or len(node.outputs) != 1:
        return
    orders = [pattern.args]
    if node.op in COMMUTATIVE and len(pattern.args) == 2:
        orders.append(pattern.args[::-1])
    for order in orders:
        yield from _match_inputs(node, order, 0, match, contents)


def _match_inputs(
    node: Node, patterns: list[ast.expr], slot: int, match: Match, contents: Contents
) -> Iterator[Match]:
    if slot == len(patterns):
        yield match
        return
    for found in _match(node.input(slot), patterns[slot], match, contents):
        yield from _match_inputs(node, patterns, slot + 1, found, contents)


def _is_number(value: Value, number: float) -> bool:
    array = value.constant
    if array is None or array.size != 1 or array.dtype == object:
        return False
    return math.isclose(float(array.reshape(())), number, rel_tol=TOLERANCE, abs_tol=1e-12)


def _has_attribute(node: Node, word: ast.keyword, contents: Contents) -> bool:
    if word.arg == "axis" and isinstance(word.value, ast.Name):
        rank = len(node.required(0).tensor.shape or ())
        return (attr(node, "axis") % max(rank, 1),) == _AXES[_name(word.value)](rank)
    if word.arg == "axes":
        data = node.required(0).type
        if not isinstance(data, TensorType) or data.shape is None:
            return False
        return _axes(node, contents) == _AXES[_name(word.value)](len(node.required(0).shape))
    assert isinstance(word.value, ast.Constant)
    assert word.arg is not None
    found, wanted = attr(node, word.arg), word.value.value
    if isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=TOLERANCE)
    return found == wanted


def _axes(node: Node, contents: Contents) -> tuple[int, ...] | None:
    """The axes of a reduction, whether an input or an attribute, as numbers from 0."""
    found: Any = contents.dims(node.input(1)) or attr(node, "axes")
    if not found or not all(isinstance(axis, int) for axis in found):
        return None
    rank = len(node.required(0).shape)
    return tuple(sorted(axis % rank for axis in found))


_AXES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "LAST": lambda rank: (rank - 1,),
    "SPATIAL": lambda rank: tuple(range(2, rank)),
}


# -- replacing ---------------------------------------------------------------------------------


def _replace(
    graph: Graph, node: Node, replacement: ast.Call, match: Match, contents: Contents
) -> None:
    made = _build(graph, node, replacement, match, contents)
    made.type = node.output.type
    give_way(graph, node.output, made)
    graph.remove(node)


def _build(graph: Graph, node: Node, pattern: ast.expr, match: Match, contents: Contents) -> Value:
    match pattern:
        case ast.Name(id="ONES"):
            x = match["x"]
            ones = np.ones(evaluate(x.shape[-1], {}), x.dtype.numpy)
            return graph.add_constant(ones, "ones")
        case ast.Name(id=name):
            return match[name]
        case ast.Constant() | ast.UnaryOp():
            number = np.array(ast.literal_eval(pattern), node.output.dtype.numpy)
            return graph.add_constant(number)
        case ast.Call():
            inputs = [_build(graph, node, arg, match, contents) for arg in pattern.args]
            attrs = {str(word.arg): _attribute(word.value, match) for word in pattern.keywords}
            op = _name(pattern.func)
            made = graph.add(op, inputs, attrs, name=node.name, before=node)
            infer_node(made, contents)
            return made.output
        case _:
            raise InternalError(f"replacement has {ast.unparse(pattern)}")


def _attribute(word: ast.expr, match: Match) -> Attr:
    if isinstance(word, ast.Name):
        constant = match[word.id].constant
        assert constant is not None
        return float(constant.reshape(()))
    return ast.literal_eval(word)

"""Bounds of symbolic dims: what can be proved about the sign of an expression."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from tuili.tensors import (
    Dim,
    Expr,
    Sym,
    ceil_div,
    dim_max,
    dim_min,
    floor_div,
    floor_mod,
    symbols_of,
)

# Symbols for elements of tensors (see contents.py) may be negative; dims of shapes are not.
_ELEMENT = re.compile(r"v\d+")
Range: TypeAlias = "tuple[float, float]"


def bounds(dim: Dim, least: int = 0) -> Range:
    """The smallest and largest value of a dim whose symbols are `least` or more."""
    if isinstance(dim, int):
        return (dim, dim)
    low, high = 0.0, 0.0
    for monomial, coefficient in dim.terms:
        term: Range = (coefficient, coefficient)
        for atom, power in monomial:
            factor = _atom_bounds(atom, least)
            for _ in range(power):
                term = _product(term, factor)
        low, high = low + term[0], high + term[1]
    return low, high


def _atom_bounds(atom: object, least: int) -> Range:
    operation = getattr(atom, "op", None)
    if operation is None:
        signed = _ELEMENT.fullmatch(getattr(atom, "name"))  # noqa: B009
        return (-math.inf if signed else least, math.inf)
    left, right = (bounds(arg, least) for arg in getattr(atom, "args"))  # noqa: B009
    match operation:
        case "max":
            return max(left[0], right[0]), max(left[1], right[1])
        case "min":
            return min(left[0], right[0]), min(left[1], right[1])
        case "//" if right[0] >= 0:
            right = (max(right[0], 1), right[1])  # nothing is divided by 0
            quotients = [_quotient(value, by) for value in left for by in right]
            return min(quotients), max(quotients)
        case "%" if right[0] > 0:
            return 0, right[1] - 1
        case _:
            return -math.inf, math.inf


def _quotient(value: float, by: float) -> float:
    if math.isinf(by):
        return value if math.isinf(value) else 0 if value >= 0 else -1
    return value if math.isinf(value) else math.floor(value / by)


def _product(left: Range, right: Range) -> Range:
    products = [0.0 if 0 in (a, b) else a * b for a in left for b in right]
    return min(products), max(products)


def is_nonnegative(dim: Dim, least: int = 0) -> bool:
    """Whether a dim is proved to be 0 or more."""
    return bounds(dim, least)[0] >= 0


def from_front(index: Dim, size: Dim) -> Dim:
    """An index that counts from the end when it is negative, as one that counts from the front."""
    least, most = bounds(index)
    if least >= 0:
        return index
    is_negative = 1 if most < 0 else dim_min(dim_max(0 - index, 0), 1)
    return index + is_negative * size


def at_least(dim: Dim, floor: int) -> Dim:
    """`max(dim, floor)`, without the `max` where it is proved idle."""
    return dim if bounds(dim - floor)[0] >= 0 else dim_max(dim, floor)


def at_most(dim: Dim, ceiling: Dim) -> Dim:
    """`min(dim, ceiling)`, without the `min` where it is proved idle."""
    return dim if bounds(ceiling - dim)[0] >= 0 else dim_min(dim, ceiling)


def truncated_div(left: Dim, right: Dim) -> Dim:
    """`left / right` rounded towards zero, as integer division is in ONNX; `right` is positive."""
    if isinstance(left, int) and isinstance(right, int):
        return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    if is_nonnegative(left, least=1):
        return floor_div(left, right)
    return dim_max(floor_div(left, right), dim_min(ceil_div(left, right), 0))


def compare(left: Dim, right: Dim) -> int | None:
    """-1, 0 or 1 as `left` is proved below, equal to or above `right`; None when not proved."""
    low, high = bounds(left - right)
    if low > 0:
        return 1
    if high < 0:
        return -1
    return 0 if low == high == 0 else None


def struck(dims: Sequence[Dim], others: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Two lists of dims after equal factors are struck out on both sides."""
    left, right = list(dims), list(others)
    for dim in dims:
        if dim in right:
            left.remove(dim)
            right.remove(dim)
    return left, right


def product_without(dims: Sequence[Dim], others: Sequence[Dim]) -> tuple[Dim, Dim]:
    """The products of two lists of dims after equal factors are struck out on both sides."""
    left, right = struck(dims, others)
    return _product_of(left), _product_of(right)


def _product_of(dims: list[Dim]) -> Dim:
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def has_element(dim: Dim) -> bool:
    """Whether a dim depends on the elements of a tensor."""
    return any(_ELEMENT.fullmatch(name) for name in symbols_of(dim))


def is_equal_unless_empty(left: Dim, right: Dim) -> bool:
    """Whether two dims are equal wherever no symbol is 0: `max(S - 1, 0) + 1` and `S`."""
    return left == right or _without_clamps(left) == _without_clamps(right)


def _without_clamps(dim: Dim) -> Dim:
    """The dim with each `max` and `min` decided that is decided when all symbols are 1 or more."""
    if not isinstance(dim, Expr) or not _has_clamp(dim):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        product: Dim = coefficient
        for atom, power in monomial:
            for _ in range(power):
                product = product * _decided(atom)
        total = total + product
    return total


def _has_clamp(dim: Expr) -> bool:
    text = str(dim)
    return "max(" in text or "min(" in text


def _decided(atom: Any) -> Dim:
    if not hasattr(atom, "op"):
        return Sym(atom.name)
    left, right = (_without_clamps(arg) for arg in atom.args)
    if atom.op in ("//", "%"):
        return floor_div(left, right) if atom.op == "//" else floor_mod(left, right)
    low, high = bounds(left - right, least=1)
    if low >= 0:
        return left if atom.op == "max" else right
    if high <= 0:
        return right if atom.op == "max" else left
    return dim_max(left, right) if atom.op == "max" else dim_min(left, right)


def simpler(left: Dim, right: Dim) -> Dim:
    """Of two dims that are equal, the one that says more: a number, no clamps, a short text."""
    return min((left, right), key=_complexity)


def _complexity(dim: Dim) -> tuple[bool, int, int, str]:
    text = str(dim)
    return not isinstance(dim, int), text.count("max(") + text.count("min("), len(text), text


def lone_symbol(dim: Dim) -> str | None:
    """The name when a dim is exactly one symbol."""
    return dim.symbol if isinstance(dim, Expr) else None

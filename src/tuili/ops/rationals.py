"""Rational contents: what shape arithmetic in floats computes, `ceil(H / 2)` and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tuili.ops.bounds import is_nonnegative
from tuili.tensors import Dim, Expr, ceil_div, floor_div


@dataclass(frozen=True, slots=True)
class Quotient:
    """`top / bottom`, where division leaves a rest or may leave one."""

    top: Dim
    bottom: Dim


Number: TypeAlias = "Dim | Quotient"


def _parts(number: Number) -> tuple[Dim, Dim]:
    return (number.top, number.bottom) if isinstance(number, Quotient) else (number, 1)


def quotient(top: Dim, bottom: Dim) -> Number | None:
    """`top / bottom`, whole where it divides exactly; None for a division by zero."""
    if bottom == 0:
        return None
    whole = floor_div(top, bottom)
    return whole if whole * bottom == top else Quotient(top, bottom)


def add(left: Number, right: Number) -> Number | None:
    """The sum."""
    (a, b), (c, d) = _parts(left), _parts(right)
    return quotient(a + c, b) if b == d else quotient(a * d + c * b, b * d)


def subtract(left: Number, right: Number) -> Number | None:
    """The difference."""
    negative = multiply(right, -1)
    return None if negative is None else add(left, negative)


def multiply(left: Number, right: Number) -> Number | None:
    """The product."""
    (a, b), (c, d) = _parts(left), _parts(right)
    return quotient(a * c, b * d)


def divide(left: Number, right: Number) -> Number | None:
    """The quotient."""
    (a, b), (c, d) = _parts(left), _parts(right)
    return quotient(a * d, b * c)


def floor(number: Number) -> Dim:
    """Rounded down."""
    return floor_div(*_parts(number))


def ceil(number: Number) -> Dim:
    """Rounded up."""
    return ceil_div(*_parts(number))


def truncate(number: Number) -> Dim | None:
    """Rounded towards zero, as casts to integers do; None when the sign is not known."""
    if not isinstance(number, Quotient):
        return number
    return floor(number) if is_nonnegative(number.top, least=1) else None


def is_symbolic(item: object) -> bool:
    """Whether an element of contents is more than a number."""
    return isinstance(item, Expr | Quotient)

"""Elementwise operators of two or more inputs: arithmetic, comparison, logic, bits, choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from tuili.ops import rationals
from tuili.ops.bounds import compare, is_nonnegative, truncated_div
from tuili.ops.op import Op, Result, op
from tuili.ops.shapes import broadcast, each
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType, Expr, dim_max, dim_min, floor_mod


def _binary(name: str, meaning: Any, allow: str = "number", **options: Any) -> Op:
    return op(name, "A B", "C", broadcast, meaning, allow=allow, elementwise=True, **options)


def _compare(name: str, meaning: Any, accept: Callable[[int], bool], allow: str) -> Op:
    def decide(left: Dim, right: Dim) -> bool | None:
        order = compare(left, right)
        return None if order is None else accept(order)

    return op(
        name,
        "A B",
        "C:bool",
        broadcast,
        meaning,
        allow=allow,
        elementwise=True,
        symbolic=each(decide),
    )


def divide(A: Array, B: Array) -> Array:
    """Division; for integers rounded towards zero (Div-14)."""
    if A.dtype.kind not in "iu":
        return A / B
    quotient = A // B
    remainder = A - quotient * B
    return quotient + ((remainder != 0) & ((A < 0) != (B < 0))).astype(A.dtype)


def _divide_dims(inputs: Sequence[Any], attrs: Mapping[str, Any], dtype: DType) -> Array | None:
    exact = each(rationals.divide, fractions=True)
    return (exact if dtype.is_float else each(_divide_truncated))(inputs, attrs, dtype)


def _divide_truncated(left: Dim, right: Dim) -> Dim | None:
    positive = compare(right, 1)
    if positive is None and not is_nonnegative(right, least=1):
        return None
    return None if right == 0 or positive == -1 else truncated_div(left, right)


def _modulo(A: Array, B: Array, fmod: int) -> Array:
    return np.fmod(A, B) if fmod else np.mod(A, B)


def _modulo_dims(inputs: Sequence[Any], attrs: Mapping[str, Any], dtype: DType) -> Array | None:
    def remainder(left: Dim, right: Dim) -> Dim | None:
        if right == 0 or (attrs["fmod"] and not is_nonnegative(left)):
            return None
        return floor_mod(left, right)

    return each(remainder)(inputs, attrs, dtype)


def power(X: Array, Y: Array) -> Array:
    """X to the power Y, in the type of X (Pow-15)."""
    if X.dtype.kind in "iu" and Y.dtype.kind in "iu" and not np.any(Y < 0):
        return np.power(X, Y.astype(X.dtype))
    if X.dtype.kind in "iu":
        return np.power(X.astype(np.float64), Y.astype(np.float64)).astype(X.dtype)
    return np.power(X, Y.astype(X.dtype))


def _power_dims(base: Dim, exponent: Dim) -> Dim | None:
    if not isinstance(exponent, int) or not 0 <= exponent <= 4:
        return None
    return reduce(lambda total, factor: total * factor, [base] * exponent, 1)


def _bit_shift(X: Array, Y: Array, direction: str) -> Array:
    """Shifts; past the width only copies of the sign bit are left (BitShift-28)."""
    bits = X.dtype.itemsize * 8
    amount = Y.astype(np.int64)
    inside = (amount >= 0) & (amount < bits)
    safe = np.where(inside, amount, 0).astype(X.dtype)
    if direction == "LEFT":
        return np.where(inside, np.left_shift(X, safe), 0)
    sign = np.where(X < 0, X.dtype.type(-1), X.dtype.type(0)) if X.dtype.kind == "i" else 0
    return np.where(inside, np.right_shift(X, safe), sign)


def _where(condition: Array, X: Array, Y: Array) -> Array:
    return np.where(condition.astype(bool), X, Y)


def _where_dims(condition: Dim, left: Dim, right: Dim) -> Dim | None:
    if left == right:
        return left
    return None if isinstance(condition, Expr) else left if condition else right


def clip(X: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """X between two scalars; the upper one wins (Clip-13)."""
    above = X if low is None else np.maximum(X, low)
    return above if high is None else np.minimum(above, high)


def _clip_dims(inputs: Sequence[Any], attrs: Mapping[str, Any], dtype: DType) -> Array | None:
    result: Array | None = np.asarray(inputs[0], object)
    for bound, closer in zip(inputs[1:], (dim_max, dim_min), strict=False):
        if bound is not None and result is not None:
            result = each(closer)([result, bound], attrs, dtype)
    return result


def _first(site: Site) -> list[Result]:
    return [site.shape(0)]


def _mean(*data: Array) -> Array:
    return reduce(np.add, data) / data[0].dtype.type(len(data))


def _many(name: str, meaning: Any, symbolic: Any = None, allow: str = "number") -> Op:
    return op(
        name, "data*", "Y", broadcast, meaning, allow=allow, elementwise=True, symbolic=symbolic
    )


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *data: reduce(function, data)


def _both(left: Dim, right: Dim) -> Dim:
    return int(bool(left) and bool(right))


def _either(left: Dim, right: Dim) -> Dim:
    return int(bool(left) or bool(right))


ROWS = (
    _binary("Add", np.add, "arithmetic", symbolic=each(rationals.add, fractions=True)),
    _binary("Sub", np.subtract, symbolic=each(rationals.subtract, fractions=True)),
    _binary("Mul", np.multiply, "arithmetic", symbolic=each(rationals.multiply, fractions=True)),
    _binary("Div", divide, symbolic=_divide_dims),
    _binary("Mod", _modulo, attrs={"fmod": 0}, symbolic=_modulo_dims),
    op(
        "Pow",
        "X Y:U",
        "Z",
        broadcast,
        power,
        elementwise=True,
        symbolic=each(_power_dims),
        allow={"T": "number", "U": "number"},
    ),
    _many("Max", _folded(np.maximum), each(_folded(dim_max))),
    _many("Min", _folded(np.minimum), each(_folded(dim_min))),
    _many("Sum", _folded(np.add), each(_folded(lambda a, b: a + b))),
    _many("Mean", _mean, allow="float"),
    _binary("And", np.logical_and, "bool", symbolic=each(_both)),
    _binary("Or", np.logical_or, "bool", symbolic=each(_either)),
    _binary("Xor", np.logical_xor, "bool"),
    _binary("BitwiseAnd", np.bitwise_and, "int"),
    _binary("BitwiseOr", np.bitwise_or, "int"),
    _binary("BitwiseXor", np.bitwise_xor, "int"),
    _binary("BitShift", _bit_shift, "int", attrs={"direction": ""}),
    _compare("Equal", np.equal, lambda order: order == 0, "any"),
    _compare("Less", np.less, lambda order: order < 0, "number"),
    _compare("LessOrEqual", np.less_equal, lambda order: order <= 0, "number"),
    _compare("Greater", np.greater, lambda order: order > 0, "number"),
    _compare("GreaterOrEqual", np.greater_equal, lambda order: order >= 0, "number"),
    op(
        "Where",
        "condition:bool X Y",
        "output",
        broadcast,
        _where,
        elementwise=True,
        symbolic=each(_where_dims, fractions=True),
    ),
    op(
        "Clip",
        "X min? max?",
        "Y",
        _first,
        clip,
        elementwise=True,
        symbolic=_clip_dims,
        allow="number",
    ),
    op(
        "PRelu",
        "X slope",
        "Y",
        broadcast,
        elementwise=True,
        allow="signed",
        meaning=lambda x, slope: np.where(x < 0, x * slope, x),
    ),
)

"""Elementwise operators of one input: rounding, powers, trigonometry, tests, casts."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from tuili.ops import rationals
from tuili.ops.op import REQUIRED, Op, op
from tuili.ops.shapes import each, same
from tuili.tensors import Array, DType, Expr


def _row(name: str, meaning: Any, allow: str = "float", **options: Any) -> Op:
    return op(name, "X", "Y", same, meaning, allow=allow, elementwise=True, **options)


def erf(x: Array) -> Array:
    """The error function, exact to the last bits of f64 before rounding."""
    exact = np.frompyfunc(math.erf, 1, 1)(np.asarray(x, np.float64))
    return np.asarray(exact, np.float64).astype(x.dtype)


def _bit_cast(x: Array, to: DType) -> Array:
    return np.ascontiguousarray(x).view(to.numpy).reshape(x.shape)


def _is_inf(x: Array, detect_negative: int, detect_positive: int) -> Array:
    found = np.isinf(x)
    negative = found & (x < 0) & bool(detect_negative)
    return negative | (found & (x > 0) & bool(detect_positive))


_LARGEST = {
    DType.F8E4M3FN: (448.0, False),
    DType.F8E4M3FNUZ: (240.0, False),
    DType.F8E5M2: (57344.0, True),
    DType.F8E5M2FNUZ: (57344.0, False),
}


def cast(X: Array, to: DType, saturate: int = 1, round_mode: str = "up") -> Array:
    """The input converted to another element type (Cast-28)."""
    if to is DType.STR:
        return np.array([_text_of(item) for item in X.ravel()], object).reshape(X.shape)
    if X.dtype == object:
        return _parsed(X, to)
    if to is DType.F8E8M0:
        return _to_e8m0(X.astype(np.float32), bool(saturate), round_mode)
    if to in _LARGEST:
        return _to_float8(X, to, bool(saturate))
    if to.bits < 8:
        return _to_tiny(X, to)
    if to.is_int and DType.of(X.dtype).is_float:
        return _to_int(X, to)
    return X.astype(to.numpy)


def _to_int(x: Array, to: DType) -> Array:
    wide = x.astype(np.float64) if x.dtype.itemsize < 8 else x
    if to.bits < 64 or to.is_signed_int:
        return np.trunc(wide).astype(np.int64).astype(to.numpy)
    return wide.astype(to.numpy)


def _to_tiny(x: Array, to: DType) -> Array:
    if to is DType.F4E2M1:
        return np.clip(x.astype(np.float32), -6, 6).astype(to.numpy)
    whole = x.astype(np.float32) if DType.of(x.dtype).is_float else x.astype(np.int64)
    if whole.dtype == np.float32:
        whole = np.rint(whole).astype(np.int64)
    count = 1 << to.bits
    wrapped = whole % count
    signed = np.where(wrapped >= count // 2, wrapped - count, wrapped)
    return (signed if to.is_signed_int else wrapped).astype(np.int8).astype(to.numpy)


def _to_float8(x: Array, to: DType, saturate: bool) -> Array:
    largest, has_inf = _LARGEST[to]
    wide = x.astype(np.float32)
    if saturate:
        return np.clip(wide, -largest, largest).astype(to.numpy)
    rounded = wide.astype(to.numpy)
    if has_inf:
        return rounded
    over = np.isinf(wide) | np.isnan(rounded.astype(np.float32))
    return np.where(over, np.array(np.nan, to.numpy), rounded)


def _to_e8m0(x: Array, saturate: bool, round_mode: str) -> Array:
    bits = np.abs(x).view(np.uint32)
    exponent = (bits >> np.uint32(23)).astype(np.int64)
    fraction = bits & np.uint32(0x7FFFFF)
    half = np.uint32(0x400000)
    up = {
        "up": fraction > 0,
        "down": np.zeros_like(fraction, bool),
        "nearest": (fraction > half) | ((fraction == half) & (exponent % 2 == 1)),
    }[round_mode]
    if round_mode == "nearest":
        up = fraction >= half
    result = exponent + up
    result = np.where(result > 254, 254 if saturate else 255, result)
    result = np.where(np.isnan(x), 255, result)
    if not saturate:
        result = np.where(np.isinf(x), 255, result)
    return result.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


def _parsed(x: Array, to: DType) -> Array:
    items: list[Any] = [_text(item) for item in x.ravel()]
    if to.is_int:
        numbers = [int(float(item)) if "." in item or "e" in item else int(item) for item in items]
        return np.array(numbers, np.int64).astype(to.numpy).reshape(x.shape)
    if to is DType.BOOL:
        return np.array([item not in ("", "0", "False") for item in items]).reshape(x.shape)
    return np.array([float(item) for item in items], np.float64).astype(to.numpy).reshape(x.shape)


def _text(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


def _text_of(item: Any) -> str:
    if isinstance(item, bytes | str):
        return _text(item)
    if isinstance(item, np.bool_ | np.integer):
        return str(int(item))
    number: Any = np.asarray(item)[()]
    if number.dtype.kind != "f":
        number = np.float32(number)
    if np.isnan(number):
        return "NaN"
    if np.isinf(number):
        return "INF" if number > 0 else "-INF"
    return np.format_float_positional(number, trim="-") if _plain(float(number)) else f"{number:g}"


def _plain(number: float) -> bool:
    return number == 0 or 1e-4 <= abs(number) < 1e16


def _cast_dims(inputs: Any, attrs: Any, dtype: DType) -> Array | None:
    """Casts keep dims, but for types too narrow to promise it."""
    to = attrs["to"]
    if to is DType.BOOL:
        return each(lambda dim: None if isinstance(dim, Expr) else dim != 0)(inputs, attrs, dtype)
    if to in (DType.F32, DType.F64):
        return np.asarray(inputs[0], object)
    fits = to in (DType.I64, DType.I32)
    return each(rationals.truncate, fractions=True)(inputs, attrs, dtype) if fits else None


def _keep(inputs: Any, attrs: Any, dtype: DType) -> Array | None:
    """Rounding to the nearest leaves whole numbers alone."""
    whole = not any(isinstance(item, rationals.Quotient) for item in inputs[0].ravel())
    return np.asarray(inputs[0], object) if whole else None


_NARROW = {"float16": np.float32, "bfloat16": np.float32}


def wide(function: Any) -> Any:
    """A function of 16-bit floats, computed in f32."""

    def meaning(x: Array, **attrs: Any) -> Array:
        return function(x.astype(_NARROW.get(x.dtype.name, x.dtype)), **attrs)

    return meaning


_LIKE = {"saturate": 1, "round_mode": "up"}

ROWS = (
    _row("Abs", np.abs, "number"),
    _row("Neg", np.negative, "signed", symbolic=each(lambda dim: 0 - dim)),
    _row("Sign", np.sign, "number"),
    _row("Floor", np.floor, symbolic=each(rationals.floor, fractions=True)),
    _row("Ceil", np.ceil, symbolic=each(rationals.ceil, fractions=True)),
    _row("Round", np.rint, symbolic=_keep),
    _row("Reciprocal", lambda x: (1 / x).astype(x.dtype)),
    _row("Sqrt", np.sqrt),
    _row("Exp", wide(np.exp)),
    _row("Log", wide(np.log)),
    _row("Erf", erf, "number"),
    _row("Sin", wide(np.sin)),
    _row("Cos", wide(np.cos)),
    _row("Tan", wide(np.tan)),
    _row("Asin", wide(np.arcsin)),
    _row("Acos", wide(np.arccos)),
    _row("Atan", wide(np.arctan)),
    _row("Sinh", wide(np.sinh)),
    _row("Cosh", wide(np.cosh)),
    _row("Tanh", wide(np.tanh)),
    _row("Asinh", wide(np.arcsinh)),
    _row("Acosh", wide(np.arccosh)),
    _row("Atanh", wide(np.arctanh)),
    _row("Not", np.logical_not, "bool", symbolic=each(lambda flag: 1 - flag)),
    _row("BitwiseNot", np.bitwise_not, "int"),
    op("IsNaN", "X", "Y:bool", same, np.isnan, elementwise=True),
    op(
        "IsInf",
        "X",
        "Y:bool",
        same,
        _is_inf,
        elementwise=True,
        attrs={"detect_negative": 1, "detect_positive": 1},
    ),
    op(
        "Cast",
        "X",
        "Y:@to",
        same,
        cast,
        elementwise=True,
        symbolic=_cast_dims,
        attrs={"to": REQUIRED, **_LIKE},
    ),
    op(
        "CastLike",
        "X target:U",
        "Y:U",
        same,
        elementwise=True,
        attrs=_LIKE,
        meaning=lambda x, target, **attrs: cast(x, DType.of(target.dtype), **attrs),
    ),
    op("BitCast", "X", "Y:@to", same, _bit_cast, attrs={"to": REQUIRED}),
)

"""Element types in C: how an element is held in a register, loaded, stored and converted.

f16 and bf16 are computed in float and rounded after every operation, as NumPy does.
"""

from __future__ import annotations

import math

import numpy as np

from tuili.tensors import DType

_WIDENED = {DType.F16: "tl_from_f16({})", DType.BF16: "tl_from_bf16({})"}
_NARROWED = {DType.F16: "tl_to_f16({})", DType.BF16: "tl_to_bf16({})"}

NATIVE = frozenset(
    {DType.F32, DType.F64, DType.BOOL, *_WIDENED}
    | {kind for kind in DType if kind.is_int and kind.bits >= 8}
)


def is_native(dtype: DType) -> bool:
    """Whether C computes with elements of the type."""
    return dtype in NATIVE


def integer_limits(dtype: DType) -> tuple[int, int]:
    """The smallest and largest number of an integer type."""
    if dtype.is_unsigned_int:
        return 0, 2**dtype.bits - 1
    return -(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1


def register_type(dtype: DType) -> str:
    """The C type that holds an element in an expression."""
    return "float" if dtype in _WIDENED else dtype.c


def loaded(dtype: DType, place: str) -> str:
    """The element at an lvalue, in its register type."""
    return _WIDENED.get(dtype, "{}").format(place)


def stored(dtype: DType, value: str) -> str:
    """What to assign to memory for a register value."""
    return _NARROWED.get(dtype, "{}").format(value)


def rounded(dtype: DType, value: str) -> str:
    """A computed value, rounded to what its type can hold."""
    return loaded(dtype, stored(dtype, value)) if dtype in _WIDENED else value


def literal(value: object, dtype: DType) -> str:
    """A number in its register type."""
    if dtype.is_float:
        return _float_literal(float(value), dtype)  # pyright: ignore[reportArgumentType]
    number = int(value)  # pyright: ignore[reportArgumentType]
    if dtype.bits < 64 or abs(number) < 2**31:
        return f"({dtype.c}){number}" if number < 0 else str(number)
    if dtype is DType.U64:
        return f"UINT64_C({number})"
    return "INT64_MIN" if number == -(2**63) else f"INT64_C({number})"


def _float_literal(number: float, dtype: DType) -> str:
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    if dtype is DType.F64:
        text = repr(number)
    else:
        text = _shortest_float(number)
    text = text if any(sign in text for sign in ".e") else f"{text}.0"
    text += "" if dtype is DType.F64 else "f"
    return f"({text})" if text.startswith("-") else text


def _shortest_float(number: float) -> str:
    return str(np.float32(number))


def converted(value: str, source: DType, target: DType) -> str:
    """A register value of one type as a register value of another (Cast)."""
    if source is target:
        return value
    if target is DType.BOOL:
        return f"{value} != 0"
    if target.is_float:
        return rounded(target, f"({register_type(target)}){value}")
    if source.is_float and source is not DType.F64 and target.bits <= DType.I32.bits:
        return f"({target.c})tl_to_i32({value})"
    if source.is_float:
        whole = "tl_to_uint" if target is DType.U64 else "tl_to_int"
        return f"({target.c}){whole}({value})"
    return f"({target.c}){value}"

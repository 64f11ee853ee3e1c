"""Steps for elementwise operators, most of them read off the operator table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.part import FLOATS, INTS, Discard, Part
from tuili.ir import Value
from tuili.ops.op import KINDS
from tuili.ops.table import TABLE
from tuili.tensors import DType

PLAIN = (*FLOATS, *INTS, DType.BOOL)
# Where a function is well conditioned; elsewhere one rounding changes the answer.
DOMAIN: dict[str, tuple[float, float]] = {
    "Sqrt": (0.25, 4), "Log": (0.25, 8), "Asin": (-0.75, 0.75), "Acos": (-0.75, 0.75),
    "Atanh": (-0.75, 0.75), "Acosh": (1.25, 4), "Reciprocal": (0.25, 4), "Tan": (-1.25, 1.25),
    "Exp": (-6, 6), "Sinh": (-4, 4), "Cosh": (-4, 4), "Softplus": (-20, 20),
}  # fmt: skip
EXACT = {"Abs", "Neg", "Relu", "Add", "Sub", "Mul", "Max", "Min", "Where", "Clip", "Sum"}
JUMPS = {
    "Sign", "Floor", "Ceil", "Round", "IsNaN", "IsInf", "ThresholdedRelu", "Shrink",
    "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Mod",
}  # fmt: skip
ATTRS: dict[str, dict[str, tuple[Any, ...]]] = {
    "LeakyRelu": {"alpha": (0.01, 0.5, 2.0)},
    "ThresholdedRelu": {"alpha": (1.0, 0.5)},
    "Elu": {"alpha": (1.0, 0.5)},
    "Celu": {"alpha": (1.0, 0.5)},
    "Selu": {"alpha": (1.67, 1.0), "gamma": (1.05, 1.5)},
    "HardSigmoid": {"alpha": (0.2, 0.5), "beta": (0.5, 0.25)},
    "Swish": {"alpha": (1.0, 1.5)},
    "Gelu": {"approximate": ("none", "tanh")},
    "Shrink": {"bias": (0.0, 0.5), "lambd": (0.5, 1.0)},
    "IsInf": {"detect_negative": (1, 0), "detect_positive": (1, 0)},
    "BitShift": {"direction": ("LEFT", "RIGHT")},
    "Mod": {"fmod": (0, 1)},
    "SwiGLU": {"alpha": (1.0, 0.5)},
}
OWN = {"Cast", "CastLike", "Where", "Clip", "Pow", "Div", "Mod", "PRelu", "Not", "BitShift"}


def allowed(op: str, letter: str = "T") -> tuple[DType, ...]:
    """The plain element types that the table lets an operator have; f32 leads."""
    kinds = KINDS[TABLE[op].allow.get(letter, "any")]
    return tuple(dtype for dtype in PLAIN if dtype in kinds)


def some_type(p: Part, types: tuple[DType, ...]) -> tuple[DType, ...]:
    """Mostly f32, or else one of the others."""
    if DType.F32 in types and not p.chance(40):
        return (DType.F32,)
    return (p.one(types),)


def attributes(p: Part, op: str) -> dict[str, Any]:
    return {name: p.one(values) for name, values in ATTRS.get(op, {}).items() if p.chance(60)}


def second(p: Part, first: Value, low: float | None = None, high: float | None = None) -> Value:
    """An operand of the first one's type that broadcasts with it."""
    shape, dtype = p.of(first).shape, p.dtype(first)

    def fits(value: Value) -> bool:
        try:
            return len(np.broadcast_shapes(shape, p.of(value).shape)) <= 5
        except ValueError:
            return False

    if p.chance(50):
        try:
            return p.pick((dtype,), fits=fits, low=low, high=high)
        except Discard:
            pass
    low, high = (-2 if low is None else low), (2 if high is None else high)
    return p.leaf(dtype, p.partner(shape), low, high)


def unary(op: str) -> Callable[[Part], None]:
    def step(p: Part) -> None:
        low, high = DOMAIN.get(op, (None, None))
        exact = op in JUMPS
        x = p.pick(some_type(p, allowed(op)), low=low, high=high, exact=exact)
        attrs = attributes(p, op)
        if op in {"IsNaN", "IsInf"} and not p.dtype(x).is_float:
            raise Discard
        p.node(op, [x], attrs, exact=op in EXACT | JUMPS, jumps=exact)

    return step


def binary(op: str) -> Callable[[Part], None]:
    def step(p: Part) -> None:
        x = p.pick(some_type(p, allowed(op)), exact=op in JUMPS)
        inputs = [x, second(p, x)][:: -1 if p.chance(50) else 1]
        attrs = attributes(p, op)
        p.node(op, inputs, attrs, exact=op in EXACT | JUMPS, jumps=op in JUMPS)

    return step


def variadic(op: str) -> Callable[[Part], None]:
    def step(p: Part) -> None:
        x = p.pick(some_type(p, allowed(op)))
        more = [second(p, x) for _ in range(p.below(3))]
        p.node(op, [x, *more], exact=op in EXACT)

    return step


def logic(p: Part, op: str = "") -> None:
    x = p.pick((DType.BOOL,))
    op = p.one(("Not", "And", "Or", "Xor"))
    p.node(op, [x] if op == "Not" else [x, second(p, x)], exact=True)


def cast(p: Part) -> None:
    x = p.pick(some_type(p, PLAIN))
    to = p.one(PLAIN)
    falls = p.dtype(x).is_float and not to.is_float
    if to.is_unsigned_int and p.dtype(x).is_float and (p.of(x) < 0).any():
        raise Discard  # undefined, and it differs by processor
    p.node("Cast", [x], {"to": to}, exact=True, jumps=falls)


def cast_like(p: Part) -> None:
    x, like = p.pick(some_type(p, PLAIN)), p.pick(PLAIN)
    falls = p.dtype(x).is_float and not p.dtype(like).is_float
    if p.dtype(like).is_unsigned_int and p.dtype(x).is_float and (p.of(x) < 0).any():
        raise Discard
    p.node("CastLike", [x, like], exact=True, jumps=falls)


def where(p: Part) -> None:
    x = p.pick(some_type(p, PLAIN))
    condition = p.pick((DType.BOOL,), fits=lambda v: _broadcasts(p, v, x)) if p.chance(30) else None
    if condition is None:
        condition = p.leaf(DType.BOOL, p.partner(p.of(x).shape))
    p.node("Where", [condition, *[x, second(p, x)][:: -1 if p.chance(50) else 1]], exact=True)


def _broadcasts(p: Part, left: Value, right: Value) -> bool:
    try:
        return np.broadcast_shapes(p.of(left).shape, p.of(right).shape) is not None
    except ValueError:
        return False


def clip(p: Part) -> None:
    x = p.pick(some_type(p, allowed("Clip")))
    dtype = p.dtype(x)
    low = (
        p.given(np.array(0.5 if dtype.is_float else 0).astype(dtype.numpy))
        if p.chance(70)
        else None
    )
    high = (
        p.given(np.array(1.5 if dtype.is_float else 1).astype(dtype.numpy))
        if p.chance(70)
        else None
    )
    inputs = [x, low, high]
    while inputs[-1] is None:
        inputs.pop()
    p.node("Clip", inputs, exact=True)


def divide(p: Part) -> None:
    x = p.pick(some_type(p, allowed("Div")))
    p.node("Div", [x, second(p, x, 0.5 if p.dtype(x).is_float else 1, 3)])


def modulo(p: Part) -> None:
    x = p.pick(some_type(p, allowed("Mod")), exact=True)
    floating = p.dtype(x).is_float
    y = second(p, x, 0.5 if floating else 1, 3)
    if y in p.inexact:
        raise Discard
    p.node("Mod", [x, y], {"fmod": 1 if floating else p.below(2)}, exact=True, jumps=True)


def power(p: Part) -> None:
    x = p.pick(some_type(p, (*FLOATS, DType.I32, DType.I64)), low=0.25, high=4)
    kinds = (DType.F32, p.dtype(x), DType.I64, DType.F64)
    exponents = (0.5, 2, 3, -1, 1, 0) if p.dtype(x).is_float else (1, 2, 3)
    kind = p.one(kinds)
    if p.chance(50):
        y = p.constant(np.array(p.one(exponents)).astype(kind.numpy))
    else:
        y = p.leaf(kind, p.partner(p.of(x).shape), 1, 3)
    p.node("Pow", [x, y], jumps=not p.dtype(x).is_float)


def prelu(p: Part) -> None:
    x = p.pick(some_type(p, allowed("PRelu")))
    p.node("PRelu", [x, p.leaf(p.dtype(x), _into(p, p.of(x).shape), constant=70)], exact=True)


def _into(p: Part, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to another."""
    kept = [1 if p.chance(40) else dim for dim in shape]
    return tuple(kept[p.below(len(kept) + 1) :])


def shift(p: Part) -> None:
    x = p.pick((p.one((DType.U8, DType.U16, DType.U32, DType.U64)),))
    y = p.leaf(p.dtype(x), p.partner(p.of(x).shape), 0, 5)
    p.node("BitShift", [x, y], {"direction": p.one(("LEFT", "RIGHT"))})


def swiglu(p: Part) -> None:
    x = p.pick(some_type(p, FLOATS))
    y = p.leaf(p.dtype(x), p.of(x).shape)
    p.node("SwiGLU", [x, y], attributes(p, "SwiGLU"))


_UNARY = [
    row.name
    for row in TABLE.values()
    if row.elementwise and len(row.inputs) == 1 and not row.inputs[0].variadic
    if row.name != "RoundTo"  # ours alone: no file has it
]
_BINARY = [row.name for row in TABLE.values() if row.elementwise and len(row.inputs) == 2]

STEPS: dict[str, Callable[[Part], None]] = {
    **{op: unary(op) for op in _UNARY if op not in OWN},
    **{op: binary(op) for op in _BINARY if op not in OWN | {"And", "Or", "Xor"}},
    **{op: variadic(op) for op in ("Max", "Min", "Sum", "Mean")},
    **dict.fromkeys(("Not", "And", "Or", "Xor"), logic),
    "Cast": cast,
    "CastLike": cast_like,
    "Where": where,
    "Clip": clip,
    "Div": divide,
    "Mod": modulo,
    "Pow": power,
    "PRelu": prelu,
    "BitShift": shift,
    "SwiGLU": swiglu,
}

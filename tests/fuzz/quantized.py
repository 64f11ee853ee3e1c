"""Steps with quantised tensors; scales are powers of two, so that nothing rounds by luck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.neural import image, weights, window
from tests.fuzz.part import Part
from tuili.ir import Value
from tuili.tensors import DType

BYTES = (DType.U8, DType.I8)


def scale(p: Part, *shape: int) -> Value:
    found = np.array([p.one((0.25, 0.5, 0.125)) for _ in range(int(np.prod(shape)))], np.float32)
    return p.given(found.reshape(shape))


def zero(p: Part, dtype: DType, *shape: int) -> Value:
    low = 0 if dtype.is_unsigned_int else -3
    found = np.array([low + p.below(7) for _ in range(int(np.prod(shape)))]).astype(dtype.numpy)
    return p.given(found.reshape(shape))


def quantize(p: Part) -> None:
    x = p.pick(exact=True)
    dtype = p.one((*BYTES, DType.U16, DType.I16))
    shape: tuple[int, ...] = ()
    attrs: dict[str, Any] = {}
    if p.of(x).ndim and p.chance(30):
        axis = p.axis(p.of(x).ndim)
        shape, attrs = (p.of(x).shape[axis],), {"axis": axis}
    inputs = [x, scale(p, *shape), zero(p, dtype, *shape)]
    (q,) = p.node("QuantizeLinear", inputs, attrs, exact=True, jumps=True)
    if p.chance(60):
        p.node("DequantizeLinear", [q, *inputs[1:]], attrs, exact=True)


def dequantize(p: Part) -> None:
    x = p.pick((*BYTES, DType.I32, DType.U16, DType.I16))
    dtype = p.dtype(x)
    shape: tuple[int, ...] = ()
    attrs: dict[str, Any] = {}
    if p.of(x).ndim and p.chance(30):
        axis = p.axis(p.of(x).ndim)
        shape, attrs = (p.of(x).shape[axis],), {"axis": axis}
    inputs = [x, scale(p, *shape)]
    if dtype is not DType.I32 and p.chance(70):
        inputs.append(zero(p, dtype, *shape))
    p.node("DequantizeLinear", inputs, attrs, exact=True)


def dynamic(p: Part) -> None:
    x = p.pick(exact=True, rank=lambda rank: rank > 0)
    if not p.of(x).size or p.of(x).max() == p.of(x).min():
        return
    p.node("DynamicQuantizeLinear", [x], outputs=3)


def _matrices(p: Part) -> tuple[Value, Value, DType, DType]:
    a_type, b_type = p.one(BYTES), p.one(BYTES)
    rows, inner, columns = p.one((1, 3, 8)), p.one((1, 4, 7, 16, 32)), p.one((1, 3, 16, 17))
    a = p.leaf(a_type, (*p.shape(0, 1), rows, inner), 0, 20)
    b = p.leaf(b_type, (inner, columns), -9, 9, constant=70, sealed=True)
    return a, b, a_type, b_type


def matmul_integer(p: Part) -> None:
    a, b, a_type, b_type = _matrices(p)
    inputs: list[Value | None] = [a, b]
    if p.chance(70):
        inputs.append(zero(p, a_type))
        if p.chance(70):
            inputs.append(zero(p, b_type, *(() if p.chance(60) else p.of(b).shape[-1:])))
    p.node("MatMulInteger", inputs, exact=True)


def qlinear_matmul(p: Part) -> None:
    a, b, a_type, b_type = _matrices(p)
    y_type = a_type
    inputs = [
        a, scale(p), zero(p, a_type), b, scale(p), zero(p, b_type), scale(p), zero(p, y_type),
    ]  # fmt: skip
    p.node("QLinearMatMul", inputs, exact=True)


def _convolved(p: Part) -> tuple[Value, Value, DType, DType, dict[str, Any]]:
    shape = p.of(image(p, p.one((1, 3, 4, 16)))).shape
    a_type, b_type = DType.U8, p.one(BYTES)
    x = p.leaf(a_type, shape, 0, 20, constant=0)
    attrs = window(p, shape[2:])
    group = p.one([n for n in (1, 1, shape[1]) if shape[1] % n == 0])
    out = group * p.one((1, 2, 4))
    w = p.leaf(
        b_type, (out, shape[1] // group, *attrs["kernel_shape"]), -9, 9, constant=80, sealed=True
    )
    return x, w, a_type, b_type, {**attrs, "group": group}


def conv_integer(p: Part) -> None:
    x, w, a_type, b_type, attrs = _convolved(p)
    inputs = [x, w]
    if p.chance(70):
        inputs.append(zero(p, a_type))
        if p.chance(50):
            inputs.append(zero(p, b_type))
    p.node("ConvInteger", inputs, attrs, exact=True)


def qlinear_conv(p: Part) -> None:
    x, w, a_type, b_type, attrs = _convolved(p)
    out = p.of(w).shape[0]
    per = (out,) if p.chance(40) else ()
    w_zero = p.constant(np.zeros(per, b_type.numpy)) if per else zero(p, b_type)
    inputs = [
        x, scale(p), zero(p, a_type), w, scale(p, *per), w_zero, scale(p), zero(p, a_type),
    ]  # fmt: skip
    if p.chance(50):
        inputs.append(p.leaf(DType.I32, (out,), -20, 20))
    p.node("QLinearConv", inputs, attrs, exact=True)


def round_trip(p: Part) -> None:
    """Quantise, convolve or multiply between dequantised tensors: how exporters write int8."""
    x = p.pick(exact=True, rank=lambda rank: rank == 2)
    zero_point, step = zero(p, DType.U8), scale(p)
    (q,) = p.node("QuantizeLinear", [x, step, zero_point], exact=True, jumps=True)
    (a,) = p.node("DequantizeLinear", [q, step, zero_point], exact=True)
    w = p.constant(
        np.random.default_rng(p.below(99)).integers(-9, 9, (p.of(x).shape[1], 4), np.int8)
    )
    (b,) = p.node("DequantizeLinear", [w, scale(p), p.constant(np.int8(0))], exact=True)
    (y,) = p.node("MatMul", [a, b], exact=True)
    if p.chance(60):
        (y,) = p.node("Add", [y, weights(p, 4)], exact=True)
    step = scale(p)
    (q,) = p.node("QuantizeLinear", [y, step, zero_point], exact=True, jumps=True)
    p.node("DequantizeLinear", [q, step, zero_point], exact=True)


STEPS: dict[str, Callable[[Part], None]] = {
    "QuantizeLinear": quantize, "DequantizeLinear": dequantize, "DynamicQuantizeLinear": dynamic,
    "MatMulInteger": matmul_integer, "QLinearMatMul": qlinear_matmul,
    "ConvInteger": conv_integer, "QLinearConv": qlinear_conv, "quantised by hand": round_trip,
}  # fmt: skip

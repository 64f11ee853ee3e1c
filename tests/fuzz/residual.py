"""Steps of quantised networks that read a value twice: residual sums, shared weights, few bits.

Scales are powers of two and codes small, so that every sum has the same bits in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.part import Discard, Part
from tests.fuzz.quantized import BYTES, scale, zero
from tuili.ir import Value
from tuili.tensors import Array, DType

CODES = (DType.I8, DType.U8, DType.I4, DType.U4)
WIDE = (4, 8, 16, 32)
UNEVEN = (0.2903, 0.3659)


def coded(p: Part, x: Value, dtype: DType) -> Value:
    """The codes of a real value and those codes as real numbers; some graphs read both."""
    parameters = [scale(p), zero(p, dtype)]
    (q,) = p.node("QuantizeLinear", [x, *parameters], exact=True, jumps=True)
    if p.chance(20):
        q = _moved(p, q)
    return p.node("DequantizeLinear", [q, *parameters], exact=True)[0]


def _moved(p: Part, q: Value) -> Value:
    """What exporters put between the two: the codes travel, their values stay."""
    op = p.one(("Identity", "Reshape", "Transpose"))
    if op == "Reshape":
        return p.node(op, [q, p.ints(p.of(q).shape, 0)], exact=True)[0]
    if op == "Transpose":
        order = tuple(range(p.of(q).ndim))
        return p.node(op, [q], {"perm": order}, exact=True)[0]
    return p.node(op, [q], exact=True)[0]


def numbers(p: Part, dtype: DType, *shape: int) -> Array:
    low, high = (0, 7) if dtype.is_unsigned_int else (-4, 4)
    drawn = np.random.default_rng(p.below(999)).integers(low, high, shape, endpoint=True)
    return drawn.astype(dtype.numpy)


def parameters_of(p: Part, shape: tuple[int, ...], axis: int) -> tuple[tuple[int, ...], Any]:
    """The shape of the scales of weights, and the attributes: one, one a channel, one a block."""
    how = p.below(3)
    if how == 0:
        return (), {}
    if how == 1:
        return (shape[axis],), {"axis": axis}
    along = p.below(2)
    block = p.one((2, 4, shape[along]))
    blocks = list(shape)
    blocks[along] = -(-shape[along] // block)
    if len(shape) != 2 or shape[along] % block:
        raise Discard
    return tuple(blocks), {"axis": along, "block_size": block}


def weights(p: Part, shape: tuple[int, ...], axis: int, codes: Value | None = None) -> Value:
    """Dequantised weights; of codes that another node reads too when they are given."""
    dtype = p.one(CODES) if codes is None else p.dtype(codes)
    spread, attrs = parameters_of(p, shape, axis)
    stored = p.constant(numbers(p, dtype, *shape)) if codes is None else codes
    steps = np.array([p.one((0.25, 0.125)) for _ in range(int(np.prod(spread)))], np.float32)
    inputs: list[Value | None] = [stored, p.constant(steps.reshape(spread))]
    if p.chance(60):
        inputs.append(p.constant(numbers(p, dtype, *spread)))
    return p.node("DequantizeLinear", inputs, attrs, exact=True)[0]


def products(p: Part) -> None:
    """Two products in a row with a sum around them: x is read twice, or the weights are."""
    width, dtype = p.one(WIDE), p.one(BYTES)
    x = coded(p, p.leaf(DType.F32, (*p.shape(0, 1), p.one((1, 3, 8)), width)), dtype)
    kind = p.one(CODES)
    codes = p.constant(numbers(p, kind, width, width))
    y = x
    for _ in range(1 + p.below(2)):
        w = weights(p, (width, width), 1, codes if p.chance(60) else None)
        if p.chance(30):
            (w,) = p.node("Transpose", [w], {"perm": (1, 0)}, exact=True)
        (y,) = p.node("MatMul", [y, w], exact=True)
        y = coded(p, y, dtype)
    _joined(p, x, y, dtype)
    if p.chance(20):  # the codes in another role
        p.node("Cast", [codes], {"to": DType.F32}, exact=True)


def _joined(p: Part, x: Value, y: Value, dtype: DType) -> None:
    (y,) = p.node(p.one(("Add", "Mul", "Sub")), [y, x] if p.chance(50) else [x, y], exact=True)
    if p.chance(50):
        (y,) = p.node("Relu", [y], exact=True)
    y = coded(p, y, dtype)
    if p.chance(40):
        p.node(p.one(("Add", "Mul")), [y, y], exact=True)


def convolutions(p: Part) -> None:
    """A residual block, as a quantiser writes it."""
    channels, dtype = p.one((4, 8, 16, 17)), p.one(BYTES)
    size = [p.one((1, 4, 6)) for _ in range(p.one((1, 2, 2)))]
    x = coded(p, p.leaf(DType.F32, (p.one((1, 2)), channels, *size)), dtype)
    shape = (channels, channels, *([p.one((1, 3))] * len(size)))
    codes = p.constant(numbers(p, p.one(CODES), *shape))
    y = x
    for _ in range(1 + p.below(2)):
        w = weights(p, shape, 0, codes if p.chance(50) else None)
        inputs: list[Value | None] = [y, w]
        if p.chance(50):
            bias = p.constant(numbers(p, DType.I32, channels))
            inputs.append(p.node("DequantizeLinear", [bias, scale(p)], exact=True)[0])
        attrs = {"pads": tuple(n // 2 for n in shape[2:]) * 2}
        (y,) = p.node("Conv", inputs, attrs, exact=True)
        if p.chance(40):
            (y,) = p.node("Relu", [y], exact=True)
        y = coded(p, y, dtype)
    _joined(p, x, y, dtype)


def _triple(p: Part, dtype: DType, *shape: int) -> list[Value | None]:
    x = p.leaf(dtype, shape, 0, 20)
    return [x, scale(p), zero(p, dtype)]


def on_codes(p: Part) -> None:
    """com.microsoft operators on codes, whose operands may be one value in two roles."""
    dtype, shape = p.one(BYTES), p.shape(1, 3)
    a = _triple(p, dtype, *shape)
    b = a if p.chance(40) else _triple(p, dtype, *(shape if p.chance(60) else p.partner(shape)))
    # onnxruntime adds the zero point before it rounds; with this scale no sum lies halfway.
    y: list[Value | None] = [p.constant(np.float32(p.one(UNEVEN))), zero(p, dtype)]
    op = p.one(("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearLeakyRelu", "QLinearAdd"))
    if op == "QLinearConcat":
        (c,) = p.node(f"com.microsoft::{op}", [*y, *a, *a, *a], {"axis": -1}, exact=True)
    elif op == "QLinearLeakyRelu":
        (c,) = p.node(f"com.microsoft::{op}", [*a, *y], {"alpha": 0.5}, exact=True)
    else:
        (c,) = p.node(f"com.microsoft::{op}", [*a, *b, *y], exact=True)
    if p.chance(60):
        z = [p.constant(np.float32(0.5107)), zero(p, dtype)]
        p.node("com.microsoft::QLinearAdd", [c, *y, *a, *z], exact=True)
    if p.chance(40):
        p.node("DequantizeLinear", [c, *y], exact=True)


def shared_matrix(p: Part) -> None:
    """QLinearMatMul and others with one matrix of codes, under scales that differ."""
    dtype, kind, width = p.one(BYTES), p.one(BYTES), p.one(WIDE)
    x = p.leaf(dtype, (p.one((1, 3, 8)), width), 0, 12)
    w = p.constant(numbers(p, kind, width, width))
    for _ in range(1 + p.below(2)):
        per = (width,) if p.chance(30) else ()
        y = [scale(p), zero(p, dtype)]
        inputs = [x, scale(p), zero(p, dtype), w, scale(p, *per), zero(p, kind, *per), *y]
        (x,) = p.node("QLinearMatMul", inputs, exact=True)
    if p.chance(50):
        p.node("MatMulInteger", [x, w], exact=True)


STEPS: dict[str, Callable[[Part], None]] = {
    "residual products": products, "residual convolutions": convolutions,
    "residual products, more": products, "codes twice": on_codes, "a shared matrix": shared_matrix,
}  # fmt: skip

"""Activations: elementwise functions of one input with a few numbers as attributes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tuili.ops.op import Op, op
from tuili.ops.shapes import alike, same
from tuili.ops.unary import erf, wide
from tuili.tensors import Array


def _row(name: str, meaning: Any, allow: str = "float", **attrs: Any) -> Op:
    return op(name, "X", "Y", same, wide(meaning), allow=allow, elementwise=True, attrs=attrs)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, tail) / (1 + tail)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def gelu(x: Array, approximate: str = "none") -> Array:
    """x times the normal distribution's cumulative function, or its tanh approximation."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """A line between 0 and 1."""
    return np.clip(alpha * x + beta, 0, 1)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x above 0, an exponential below."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _selu(x: Array, alpha: float, gamma: float) -> Array:
    return gamma * elu(x, alpha)


def _celu(x: Array, alpha: float) -> Array:
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha))


def _shrink(x: Array, bias: float, lambd: float) -> Array:
    zero = np.zeros_like(x)
    # Integers are moved as real numbers, then cut off.
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, zero)).astype(x.dtype)


def leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    """x above 0, a part of it below."""
    return np.where(x < 0, alpha * x, x)


ROWS = (
    _row("Relu", lambda x: np.maximum(x, 0), "signed"),
    _row("LeakyRelu", leaky_relu, alpha=0.01),
    _row("ThresholdedRelu", lambda x, alpha: np.where(x > alpha, x, 0), alpha=1.0),
    _row("Elu", elu, alpha=1.0),
    _row("Celu", _celu, alpha=1.0),
    _row("Selu", _selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    _row("Sigmoid", sigmoid),
    _row("HardSigmoid", hard_sigmoid, alpha=0.2, beta=0.5),
    _row("HardSwish", lambda x: x * hard_sigmoid(x, 1 / 6, 0.5)),
    _row("Softplus", softplus),
    _row("Softsign", lambda x: x / (1 + np.abs(x))),
    _row("Swish", lambda x, alpha: x * sigmoid(alpha * x), alpha=1.0),
    _row("Mish", lambda x: x * np.tanh(softplus(x))),
    _row("Gelu", gelu, approximate="none"),
    _row("Shrink", _shrink, "number", bias=0.0, lambd=0.5),
    op(
        "SwiGLU",
        "A B",
        "Y",
        alike,
        elementwise=True,
        allow="float",
        attrs={"alpha": 1.0},
        meaning=lambda a, b, alpha: a * sigmoid(alpha * a) * b,
    ),
)

"""The pieces that quantized graphs are rewritten with: parameters, products, codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuili.ir import Attr, Graph, Node, Value
from tuili.ops.quantization import limits
from tuili.tensors import Array, DType

BYTES = (DType.U8, DType.I8)


@dataclass(frozen=True, slots=True)
class Codes:
    """A quantized tensor whose parameters are known: real = (values - zero) * scale."""

    values: Value
    scale: Array  # f32: one number, or a vector along `axis`
    zero: Array | None
    axis: int = 1

    @property
    def is_scalar(self) -> bool:
        """Whether one scale and one zero point serve the whole tensor."""
        return self.scale.size == 1 and (self.zero is None or self.zero.size == 1)

    @property
    def is_bytes(self) -> bool:
        """Whether the elements are 8-bit integers."""
        return self.values.dtype in BYTES

    @property
    def fit_bytes(self) -> bool:
        """Whether the elements are integers of 8 bits or fewer."""
        dtype = self.values.dtype
        return dtype.is_int and dtype.bits <= BYTES[0].bits


def codes_of(values: Value, scale: Value, zero: Value | None, axis: int = 1) -> Codes | None:
    """The codes, when the parameters are known, plain (no blocks) and f32."""
    known = scale.is_constant and (zero is None or zero.is_constant)
    if not known or scale.constant is None or scale.dtype is not DType.F32:
        return None
    if scale.constant.ndim > 1:
        return None
    return Codes(values, scale.constant, None if zero is None else zero.constant, axis)


def dequantized_from(value: Value | None) -> Codes | None:
    """The codes behind a value, when DequantizeLinear made it."""
    node = None if value is None else value.producer
    if node is None or node.op != "DequantizeLinear" or node.attrs.get("block_size"):
        return None
    axis = node.attrs.get("axis", 1)
    assert isinstance(axis, int)
    found = codes_of(node.required(0), node.required(1), node.input(2), axis)
    return found if found is not None and node.output.dtype is DType.F32 else None


def dequantize(graph: Graph, codes: Codes, before: Node) -> Value:
    """The real numbers of codes."""
    inputs = [codes.values, graph.add_constant(codes.scale, "scale")]
    if codes.zero is not None:
        inputs.append(graph.add_constant(codes.zero, "zero"))
    return graph.add("DequantizeLinear", inputs, {"axis": codes.axis}, before=before).output


def quantize(graph: Graph, real: Value, scale: Array, zero: Array, before: Node) -> Value:
    """The codes of real numbers for one scale and one zero point."""
    inputs = [real, graph.add_constant(scale, "scale"), graph.add_constant(zero, "zero")]
    return graph.add("QuantizeLinear", inputs, before=before).output


@dataclass(frozen=True, slots=True)
class Product:
    """What a product is made of; weights are centred, the bias is in units of the sum."""

    op: str  # QConv or QMatMul
    x: Value
    x_zero: Array | Value | None
    weights: Array
    bias: Array | None
    multiplier: Array | Value | None
    attrs: Mapping[str, Attr]


def add_product(graph: Graph, product: Product, before: Node, name: str) -> Value:
    """The product's node; returns its real result."""

    def value(given: Array | Value | None, hint: str) -> Value | None:
        return graph.add_constant(given, hint) if isinstance(given, np.ndarray) else given

    multiplier = product.multiplier
    if isinstance(multiplier, np.ndarray):
        multiplier = multiplier.astype(np.float32).reshape(-1)
    bias = None if product.bias is None else product.bias.astype(np.int32).reshape(-1)
    inputs = [
        product.x,
        graph.add_constant(product.weights, "weights"),
        value(product.x_zero, "zero"),
        value(bias, "bias"),
        value(multiplier, "multiplier"),
    ]
    return graph.add(product.op, inputs, product.attrs, before=before, name=name).output


def centred(weights: Array, zero: Array | None, axis: int) -> Array:
    """Weights less their zero point, in the smallest type that holds them."""
    wide = weights.astype(np.int32)
    if zero is not None:
        shift = zero.astype(np.int32)
        shape = [-1 if index == axis % wide.ndim else 1 for index in range(wide.ndim)]
        wide = wide - (shift.reshape(()) if shift.size == 1 else shift.reshape(shape))
    low, high = limits(DType.I8)
    fits = not wide.size or (wide.min() >= low and wide.max() <= high)
    return wide.astype(np.int8 if fits else np.int16)


def ratio(*factors: Array, by: Array | None = None) -> Array:
    """A product of scales over another one, rounded to f32 once."""
    result = np.float64(1)
    for factor in factors:
        result = result * factor.astype(np.float64)
    return np.asarray(result if by is None else result / by.astype(np.float64), np.float32)

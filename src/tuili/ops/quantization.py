"""Quantization: to and from integers and small floats, and products of quantized tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.convolution import CONV_ATTRS, conv_integer, conv_shape
from tuili.ops.linear import matmul_integer, product_shape
from tuili.ops.op import Result, op
from tuili.ops.site import Site
from tuili.ops.unary import cast
from tuili.tensors import Array, DType, ceil_div


def _quantized_type(site: Site) -> DType:
    wanted = site.attr("output_dtype")
    if site.has(2):
        found = site.dtype(2)
        if isinstance(wanted, DType) and wanted is not found:
            site.fail(f"output_dtype is {wanted.value}, but the zero point is {found.value}")
        return found
    return wanted if isinstance(wanted, DType) else DType.U8


def _quantize_shape(site: Site) -> list[Result]:
    _check_parameters(site)
    return [TensorType(_quantized_type(site), site.tensor(0).shape, _layout(site))]


def _check_parameters(site: Site) -> None:
    """Scale and zero point: one for all, one for each index of the axis, or one for each block."""
    x = site.tensor(0).shape
    if x is None:
        return
    for slot in (1, 2):
        shape = (site.tensor(slot).shape or ()) if site.has(slot) else ()
        if not shape or shape == (1,):
            continue
        axis = site.axis(site.attr("axis"), len(x))
        what = f"{site.op.inputs[slot].name} against x along axis {axis}"
        if len(shape) == 1:
            site.same(shape[0], x[axis], what)
            continue
        if len(shape) != len(x):
            site.fail(
                f"{what}: rank {len(shape)} against {len(x)}; expected rank 0, 1 or equal ones"
            )
        block = site.attr("block_size")
        for other, (count, size) in enumerate(zip(shape, x, strict=True)):
            if other != axis:
                site.same(count, size, f"{site.op.inputs[slot].name} against x along axis {other}")
            elif block:
                site.same(count, ceil_div(size, block), f"{what} in blocks of {block}")


def _layout(site: Site) -> str:
    """Elementwise operators keep the layout that a pass gave them."""
    before = site.node.output.type
    return before.layout if isinstance(before, TensorType) else ""


def _dequantize_shape(site: Site) -> list[Result]:
    _check_parameters(site)
    wanted = site.attr("output_dtype")
    dtype = wanted if isinstance(wanted, DType) else site.dtype(1)
    return [TensorType(dtype, site.tensor(0).shape, _layout(site))]


def _spread(parameter: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or zero point stretched so that it broadcasts against the data."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    axis %= len(shape)
    if parameter.ndim == 1:
        return parameter.reshape([-1 if index == axis else 1 for index in range(len(shape))])
    block = block_size or -(-shape[axis] // parameter.shape[axis])
    return np.repeat(parameter, block, axis).take(np.arange(shape[axis]), axis)


def limits(dtype: DType) -> tuple[int, int]:
    """The smallest and largest number of an integer type, sub-byte types too."""
    if dtype.is_unsigned_int:
        return 0, 2**dtype.bits - 1
    return -(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1) - 1


def quantize(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: DType | None = None,
    saturate: int = 1,
    precision: DType | int | None = None,
) -> Array:
    """round(x / scale) + zero point, clipped (QuantizeLinear-28); NaN gives the lowest code.

    The standard leaves NaN open. It comes up: a calibration that saw a mask of -inf writes a scale
    of inf. Kernels and onnxruntime give the lowest code, so folding must too.
    """
    target = output_dtype if isinstance(output_dtype, DType) else DType.U8
    target = target if y_zero_point is None else DType.of(y_zero_point.dtype)
    scale = _spread(y_scale, x.shape, axis, block_size)
    kind: Any = precision.numpy if isinstance(precision, DType) else np.result_type(np.float32)
    if not isinstance(precision, DType) and x.dtype.name in ("float16", "bfloat16"):
        kind = x.dtype
    ratio = x.astype(kind) / scale.astype(kind)
    if not target.is_int:
        return cast(ratio.astype(np.float32), target, saturate)
    rounded = np.rint(ratio.astype(np.float64))
    if y_zero_point is not None:
        rounded = rounded + _spread(y_zero_point, x.shape, axis, block_size).astype(np.float64)
    low, high = limits(target)
    coded = np.where(np.isnan(rounded), low, np.clip(rounded, low, high))
    return coded.astype(np.int32).astype(target.numpy)


def dequantize(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: DType | None = None,
) -> Array:
    """(x - zero point) * scale (DequantizeLinear-28)."""
    scale = _spread(x_scale, x.shape, axis, block_size)
    integer = DType.of(x.dtype).is_int
    wide = x.astype(np.int64 if integer else np.float32)
    if x_zero_point is not None:
        wide = wide - _spread(x_zero_point, x.shape, axis, block_size).astype(wide.dtype)
    result = wide.astype(np.float32) * scale.astype(np.float32)
    return result.astype(output_dtype.numpy if isinstance(output_dtype, DType) else x_scale.dtype)


def _dynamic_shape(site: Site) -> list[Result]:
    return [site.shape(0), (), ()]


def dynamic_quantize(x: Array) -> tuple[Array, Array, Array]:
    """8-bit integers with a scale and a zero point from the data (DynamicQuantizeLinear-11)."""
    low, high = min(0.0, float(x.min(initial=0))), max(0.0, float(x.max(initial=0)))
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    divisor = scale or np.float32(1)
    zero = np.clip(np.rint(-np.float32(low) / divisor), 0, 255).astype(np.uint8)
    y = np.clip(np.rint(x / divisor) + zero, 0, 255).astype(np.uint8)
    return y, np.array(scale), np.array(zero)


# -- products ------------------------------------------------------------------------------


def requantize(total: Array, scale: Array, zero: Array) -> Array:
    """Sums of quantized products as quantized numbers."""
    rounded = np.rint(total * scale) + zero.astype(np.float64)
    return np.clip(rounded, *limits(DType.of(zero.dtype))).astype(zero.dtype)


def _qlinear_matmul_shape(site: Site) -> list[Result]:
    return [product_shape(site, list(site.shape(0)), list(site.shape(3)))]


def _small_float(array: Array) -> bool:
    kind = DType.of(array.dtype)
    return kind.is_float and kind.bits == 8


def _qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Array:
    scale = a_scale.astype(np.float64) * b_scale.astype(np.float64) / y_scale.astype(np.float64)
    if _small_float(a):
        product = np.matmul(a.astype(np.float32), b.astype(np.float32)) * scale
        return cast(product.astype(np.float32), DType.of(y_zero.dtype))
    return requantize(matmul_integer(a, b, a_zero, b_zero).astype(np.float64), scale, y_zero)


def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    B: Array | None = None,
    **attrs: Any,
) -> Array:
    """Convolution of 8-bit integers, quantized again (QLinearConv-10)."""
    total = conv_integer(x, w, x_zero, w_zero, **attrs).astype(np.float64)
    column = (-1, *[1] * (x.ndim - 2))
    if B is not None:
        total += B.reshape(column)
    scale = x_scale.astype(np.float64) * w_scale.astype(np.float64) / y_scale.astype(np.float64)
    return requantize(total, scale.reshape(column) if scale.size > 1 else scale, y_zero)


_TYPES = {"block_size": 0, "output_dtype": None, "axis": 1}

ROWS = (
    op(
        "QuantizeLinear",
        "x y_scale:S y_zero_point?:Z",
        "y:any",
        _quantize_shape,
        quantize,
        attrs={**_TYPES, "precision": None, "saturate": 1},
    ),
    op(
        "DequantizeLinear",
        "x x_scale:S x_zero_point?",
        "y:any",
        _dequantize_shape,
        dequantize,
        attrs=_TYPES,
    ),
    op(
        "DynamicQuantizeLinear",
        "x:f32",
        "y:u8 y_scale:f32 y_zero_point:u8",
        _dynamic_shape,
        dynamic_quantize,
    ),
    op(
        "QLinearMatMul",
        "a:A a_scale:S a_zero_point:A b:B b_scale:S b_zero_point:B y_scale:S y_zero_point:Y",
        "y:Y",
        _qlinear_matmul_shape,
        _qlinear_matmul,
    ),
    op(
        "QLinearConv",
        "x:A x_scale:f32 x_zero_point:A w:B w_scale:f32 w_zero_point:B y_scale:f32 y_zero_point:Y"
        " B?:i32",
        "y:Y",
        lambda site: conv_shape(site, 3),
        qlinear_conv,
        attrs=CONV_ATTRS,
    ),
)

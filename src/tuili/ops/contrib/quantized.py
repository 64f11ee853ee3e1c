"""com.microsoft: operators on quantized tensors, and those that quantize as they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.activations import leaky_relu, sigmoid
from tuili.ops.contrib.convolution import channels_last, to_back, to_front
from tuili.ops.convolution import CONV_ATTRS, conv_shape
from tuili.ops.linear import matmul_integer, matmul_shape, product_shape
from tuili.ops.movement import concat
from tuili.ops.normalization import softmax
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.pooling import POOL_ATTRS, average_pool, pool_shape
from tuili.ops.quantization import dequantize, dynamic_quantize, qlinear_conv, quantize
from tuili.ops.recurrent import RECURRENT_ATTRS, lstm_cell, run_cells
from tuili.ops.shapes import same
from tuili.ops.site import Site
from tuili.tensors import Array, Dim, DType


def _real(x: Array, scale: Array, zero: Array | None) -> Array:
    """A per-tensor quantized array as f32."""
    shift = np.int64(0) if zero is None else zero.astype(np.int64)
    return (x.astype(np.int64) - shift).astype(np.float32) * scale.astype(np.float32)


def _coded(x: Array, scale: Array, zero: Array | None, kind: Any) -> Array:
    """f32 as a per-tensor quantized array of a type."""
    return quantize(x.astype(np.float32), scale, np.zeros((), kind) if zero is None else zero)


# -- one or two quantized inputs -----------------------------------------------------------


def _unary(function: Callable[..., Array]) -> Any:
    def meaning(
        X: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None,
        **attrs: Any,
    ) -> Array:  # fmt: skip
        y = function(_real(X, x_scale, x_zero), **attrs)
        return _coded(y, y_scale, y_zero, X.dtype)

    return meaning


def _binary(function: Any) -> Any:
    def meaning(
        A: Array, a_scale: Array, a_zero: Array | None, B: Array, b_scale: Array,
        b_zero: Array | None, c_scale: Array, c_zero: Array | None = None,
    ) -> Array:  # fmt: skip
        y = function(_real(A, a_scale, a_zero), _real(B, b_scale, b_zero))
        return _coded(y, c_scale, c_zero, A.dtype)

    return meaning


def _binary_shape(site: Site) -> list[Result]:
    return [site.broadcast(site.shape(0), site.shape(3))]


def _softmax(x: Array, axis: int, opset: int) -> Array:
    if opset >= 13:
        return softmax(x, axis)
    axis %= x.ndim
    return softmax(x.reshape(*x.shape[:axis], -1), -1).reshape(x.shape)


def _global_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    ones = [1] * (len(shape) - 2)
    last = site.attr("channels_last")
    return [(shape[0], *ones, shape[-1]) if last else (*shape[:2], *ones)]


def _global_average(x: Array, channels_last: int) -> Array:
    axes = tuple(range(1, x.ndim - 1)) if channels_last else tuple(range(2, x.ndim))
    return x.mean(axes, keepdims=True)


def _average_shape(site: Site) -> list[Result]:
    return channels_last(pool_shape)(site) if site.attr("channels_last") else pool_shape(site)


def _average(x: Array, channels_last: int, **attrs: Any) -> Array:
    y = average_pool(to_front(x) if channels_last else x, **attrs)
    return to_back(y) if channels_last else y


def _reduce_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axes = site.axes(site.attr("axes") or range(len(shape)), len(shape))
    if site.attr("keepdims"):
        return [[1 if axis in axes else dim for axis, dim in enumerate(shape)]]
    return [[dim for axis, dim in enumerate(shape) if axis not in axes]]


def _reduce_mean(x: Array, axes: Any, keepdims: int) -> Array:
    return x.mean(tuple(axes) if axes else None, keepdims=bool(keepdims))


def _concat_shape(site: Site) -> list[Result]:
    parts = [site.shape(index) for index in range(2, site.num_inputs, 3)]
    axis = site.axis(site.attr("axis"), len(parts[0]))
    total: Dim = 0
    for part in parts:
        total = total + part[axis]
    return [TensorType(site.dtype(1), (*parts[0][:axis], total, *parts[0][axis + 1 :]))]


def _concat(y_scale: Array, y_zero: Array, *inputs: Array, axis: int) -> Array:
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    whole = concat(*(_real(*triple) for triple in triples), axis=axis)
    return _coded(whole, y_scale, y_zero, y_zero.dtype)


def _where_shape(site: Site) -> list[Result]:
    return [site.broadcast(site.shape(0), site.shape(1), site.shape(4))]


def _where(
    condition: Array, X: Array, x_scale: Array, x_zero: Array, Y: Array, y_scale: Array,
    y_zero: Array, z_scale: Array, z_zero: Array,
) -> Array:  # fmt: skip
    z = np.where(condition, _real(X, x_scale, x_zero), _real(Y, y_scale, y_zero))
    return _coded(z, z_scale, z_zero, X.dtype)


# -- products ------------------------------------------------------------------------------


def integer_to_float(
    A: Array, B: Array, a_scale: Array, b_scale: Array, a_zero: Array | None = None,
    b_zero: Array | None = None, bias: Array | None = None,
) -> Array:  # fmt: skip
    """The product of quantized matrices as real numbers."""
    total = matmul_integer(A, B, a_zero, b_zero).astype(np.float32)
    y = total * (a_scale.astype(np.float32) * b_scale.astype(np.float32))
    return y if bias is None else y + bias


def dynamic_product(A: Array, B: Array, scale: Array, zero: Array | None) -> Array:
    """A real matrix, quantized on the fly, times a quantized one, in f32."""
    codes, a_scale, a_zero = dynamic_quantize(A.astype(np.float32))
    return integer_to_float(codes, B, a_scale, scale, a_zero, zero)


def _dynamic_matmul(
    A: Array, B: Array, scale: Array, zero: Array | None = None, bias: Array | None = None
) -> Array:
    y = dynamic_product(A, B, scale, zero)
    return y if bias is None else y + bias


def _qgemm_shape(site: Site) -> list[Result]:
    left, right = list(site.need_rank(0, 2)), list(site.need_rank(3, 2))
    left = left[::-1] if site.attr("transA") else left
    right = right[::-1] if site.attr("transB") else right
    kind = site.dtype(8) if site.has(8) else DType.F32
    return [TensorType(kind, tuple(product_shape(site, left, right)))]


def _qgemm(
    A: Array, a_scale: Array, a_zero: Array, B: Array, b_scale: Array, b_zero: Array,
    C: Array | None = None, y_scale: Array | None = None, y_zero: Array | None = None, *,
    alpha: float, transA: int, transB: int,
) -> Array:  # fmt: skip
    left, right = (A.T if transA else A), (B.T if transB else B)
    total = matmul_integer(left, right, a_zero, b_zero)
    total = total if C is None else total + C
    y = total.astype(np.float32) * (np.float32(alpha) * a_scale * b_scale)
    return y if y_scale is None else _coded(y, y_scale, y_zero, A.dtype)


def _dynamic_lstm_shape(site: Site) -> list[Result]:
    length, batch, _ = site.need_rank(0, 3)
    hidden = site.attr("hidden_size") or site.need_rank(2, 3)[1]
    directions = 2 if site.attr("direction") == "bidirectional" else 1
    state = (directions, batch, hidden)
    return [(length, directions, batch, hidden), state, state]


def _direction(parameter: Array, direction: int) -> Array:
    return parameter[direction] if parameter.ndim else parameter


def _dynamic_lstm(
    X: Array, W: Array, R: Array, B: Array | None, lens: Array | None, initial_h: Array | None,
    initial_c: Array | None, P: Array | None, w_scale: Array, w_zero: Array, r_scale: Array,
    r_zero: Array, **attrs: Any,
) -> tuple[Array, ...]:  # fmt: skip
    """Weights are [D, input, 4 * hidden], transposed against LSTM's."""
    hidden = attrs["hidden_size"] or R.shape[1]

    def product(codes: Array, scale: Array, zero: Array) -> Any:
        return lambda x, d: dynamic_product(x, codes[d], _direction(scale, d), _direction(zero, d))

    settled = {**attrs, "hidden_size": hidden, "layout": 0}
    make_step = lstm_cell(product(R, r_scale, r_zero), hidden, P, settled)
    project = product(W, w_scale, w_zero)
    return run_cells(X, project, 4 * hidden, B, lens, [initial_h, initial_c], make_step, settled)


# -- convolution, quantize -----------------------------------------------------------------


def _qconv_shape(site: Site) -> list[Result]:
    if site.attr("channels_last"):
        return channels_last(conv_shape, 3)(site)
    return conv_shape(site, 3)


def _qconv(x: Array, *others: Array | None, channels_last: int, **attrs: Any) -> Array:
    y = qlinear_conv(to_front(x) if channels_last else x, *others, **attrs)  # pyright: ignore[reportArgumentType]
    return to_back(y) if channels_last else y


def _quantize_shape(site: Site) -> list[Result]:
    return [TensorType(site.dtype(2) if site.has(2) else DType.U8, site.shape(0))]


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_ONE = "X X_scale:f32 X_zero_point? Y_scale:f32 Y_zero_point?"
_TWO = "A A_scale:f32 A_zero_point? B B_scale:f32 B_zero_point? C_scale:f32 C_zero_point?"

ROWS = (
    _row("QLinearSigmoid", _ONE, "Y", same, _unary(sigmoid)),
    _row("QLinearLeakyRelu", _ONE, "Y", same, _unary(leaky_relu), alpha=0.01),
    _row("QLinearSoftmax", _ONE, "Y", same, _unary(_softmax), axis=-1, opset=REQUIRED),
    _row(
        "QLinearGlobalAveragePool",
        _ONE,
        "Y",
        _global_shape,
        _unary(_global_average),
        channels_last=0,
    ),
    _row(
        "QLinearAveragePool",
        _ONE,
        "Y",
        _average_shape,
        _unary(_average),
        **POOL_ATTRS,
        channels_last=0,
        count_include_pad=0,
    ),
    _row(
        "QLinearReduceMean", _ONE, "Y", _reduce_shape, _unary(_reduce_mean), axes=None, keepdims=1
    ),
    _row("QLinearAdd", _TWO, "C", _binary_shape, _binary(np.add)),
    _row("QLinearMul", _TWO, "C", _binary_shape, _binary(np.multiply)),
    _row(
        "QLinearConcat",
        "Y_scale:f32 Y_zero_point:any inputs*:any",
        "Y:any",
        _concat_shape,
        _concat,
        axis=REQUIRED,
    ),
    _row(
        "QLinearWhere",
        "condition:bool X x_scale:f32 x_zero_point Y y_scale:f32 y_zero_point z_scale:f32"
        " z_zero_point",
        "Z",
        _where_shape,
        _where,
    ),
    _row(
        "MatMulIntegerToFloat",
        "A:A B:B a_scale:F b_scale:F a_zero_point?:A b_zero_point?:B bias?:F",
        "Y:F",
        matmul_shape,
        integer_to_float,
    ),
    _row(
        "DynamicQuantizeMatMul",
        "A B:B b_scale b_zero_point?:B bias?",
        "Y",
        matmul_shape,
        _dynamic_matmul,
    ),
    _row(
        "QGemm",
        "A:A a_scale:F a_zero_point:A B:B b_scale:F b_zero_point:B C?:i32 y_scale?:F"
        " y_zero_point?:any",
        "Y:any",
        _qgemm_shape,
        _qgemm,
        alpha=1.0,
        transA=0,
        transB=0,
    ),
    _row(
        "DynamicQuantizeLSTM",
        "X W:W R:W B? sequence_lens?:i32 initial_h? initial_c? P? W_scale W_zero_point:W R_scale"
        " R_zero_point:W",
        "Y Y_h Y_c",
        _dynamic_lstm_shape,
        _dynamic_lstm,
        **RECURRENT_ATTRS,
        input_forget=0,
    ),
    _row(
        "QLinearConv",
        "x:A x_scale:f32 x_zero_point:A w:B w_scale:f32 w_zero_point:B y_scale:f32 y_zero_point:Y"
        " B?:i32",
        "y:Y",
        _qconv_shape,
        _qconv,
        **CONV_ATTRS,
        channels_last=0,
    ),
    _row(
        "QuantizeLinear", "x y_scale:S y_zero_point?:Z", "y:any", _quantize_shape, quantize, axis=1
    ),
    _row("DequantizeLinear", "x x_scale:S x_zero_point?", "y:S", same, dequantize, axis=1),
)

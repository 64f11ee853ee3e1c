"""com.microsoft: products and activations that exporters emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.activations import gelu, sigmoid
from tuili.ops.contrib.convolution import activate
from tuili.ops.linear import gemm, gemm_shape, matmul_shape, product_shape
from tuili.ops.normalization import softmax
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import broadcast, same
from tuili.ops.site import Site
from tuili.ops.slicing import trilu
from tuili.tensors import Array, Dim, DType

# -- products ------------------------------------------------------------------------------


def _turned(shape: Sequence[Dim], batch: int, last: int) -> list[Dim]:
    """The shape after transBatch and trans."""
    dims = list(shape)
    if batch:
        dims = [*dims[1:-1], dims[0], dims[-1]]
    return [*dims[:-2], dims[-1], dims[-2]] if last and len(dims) > 1 else dims


def _turn(x: Array, batch: int, last: int) -> Array:
    if batch:
        x = np.moveaxis(x, 0, -2)
    return x.swapaxes(-1, -2) if last and x.ndim > 1 else x


def _fused_matmul_shape(site: Site) -> list[Result]:
    left = _turned(site.shape(0), site.attr("transBatchA") or 0, site.attr("transA"))
    right = _turned(site.shape(1), site.attr("transBatchB") or 0, site.attr("transB"))
    return [product_shape(site, left, right)]


def _fused_matmul(
    A: Array,
    B: Array,
    *,
    alpha: float,
    transA: int,
    transB: int,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Array:
    product = np.matmul(_turn(A, transBatchA, transA), _turn(B, transBatchB, transB))
    return product * product.dtype.type(alpha)


def _fused_matmul_activation(A: Array, B: Array, **attrs: Any) -> Array:
    own = (
        "activation",
        "activation_alpha",
        "activation_axis",
        "activation_beta",
        "activation_gamma",
    )
    name, alpha, axis, beta, _ = (attrs.pop(key) for key in own)
    product = _fused_matmul(A, B, **attrs)
    if name == "Softmax":
        return softmax(product, -1 if axis is None else axis)
    return activate(product, name, [alpha, beta])


def _fused_gemm(A: Array, B: Array, C: Array | None = None, **attrs: Any) -> Array:
    names = ("alpha", "beta", "transA", "transB")
    product = gemm(A, B, C, **{name: attrs[name] for name in names})
    parameters = [attrs["activation_alpha"], attrs["activation_beta"]]
    return activate(product, attrs["activation"], parameters)


# -- small ones ----------------------------------------------------------------------------


def _fast_gelu(X: Array, bias: Array | None = None) -> Array:
    return gelu(X if bias is None else X + bias, "tanh")


def _halves_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    return [(*shape[:-1], shape[-1] // 2)]


def _bias_split_gelu(X: Array, bias: Array) -> Array:
    left, right = np.split(X + bias, 2, -1)
    return left * gelu(right)


def _swiglu_shape(site: Site) -> list[Result]:
    return [site.shape(0)] if site.has(1) else _halves_shape(site)


def _swiglu(
    gate: Array, up: Array | None = None, *, activation_alpha: float, activation_beta: float,
    limit: float, round_activation: int,
) -> Array:  # fmt: skip
    """A product of two halves, one behind a sigmoid; a limit above 0 bounds both."""
    kind = gate.dtype
    if up is None:
        gate, up = np.split(gate, 2, -1)
    gate, up = gate.astype(np.float32), up.astype(np.float32)
    if limit > 0:
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    opened = gate * sigmoid(activation_alpha * gate)
    if round_activation:
        opened = opened.astype(kind).astype(np.float32)
    return (opened * (up + activation_beta)).astype(kind)


def _scaled_silu(x: Array, scale: Array | None = None, *, alpha: float) -> Array:
    factor = np.float32(alpha) if scale is None else scale.astype(np.float32)
    z = (x.astype(np.float32) * factor).astype(x.dtype)
    return z * sigmoid(z.astype(np.float32)).astype(x.dtype)


def _shifted(x: Array, zero: Array | None) -> Array:
    return x.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))


def _mul_shape(site: Site) -> list[Result]:
    return [site.broadcast(site.shape(0), site.shape(2))]


def _mul_integer(A: Array, a_zero: Array | None, B: Array, b_zero: Array | None = None) -> Array:
    return _shifted(A, a_zero) * _shifted(B, b_zero)


def _sum_integer_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axes = site.axes(site.attr("axes"), len(shape))
    dims = [1 if axis in axes else dim for axis, dim in enumerate(shape)]
    if not site.attr("keepdims"):
        dims = [dim for axis, dim in enumerate(shape) if axis not in axes]
    unsigned = site.dtype(0).is_unsigned_int
    return [TensorType(DType.U32 if unsigned else DType.I32, tuple(dims))]


def _sum_integer(x: Array, axes: Sequence[int], keepdims: int) -> Array:
    kind = np.uint32 if x.dtype == np.uint8 else np.int32
    return x.sum(tuple(axes), kind, keepdims=bool(keepdims))


def _product_16_shape(site: Site) -> list[Result]:
    (shape,) = matmul_shape(site)
    unsigned = site.dtype(0).is_unsigned_int and site.dtype(1).is_unsigned_int
    return [TensorType(DType.U32 if unsigned else DType.I32, tuple(shape))]  # pyright: ignore[reportArgumentType]


def _product_16(A: Array, B: Array) -> Array:
    unsigned = A.dtype == np.uint16 and B.dtype == np.uint16
    return np.matmul(A.astype(np.int64), B.astype(np.int64)).astype(
        np.uint32 if unsigned else np.int32
    )


def _expand_dims_shape(site: Site) -> list[Result]:
    shape = list(site.shape(0))
    axis = site.number(1)
    if axis is None:
        return [site.open(len(shape) + 1)]
    shape.insert(site.axis(axis, len(shape) + 1), 1)
    return [shape]


def _cdist(A: Array, B: Array, metric: str) -> Array:
    squares = np.square(A[:, None] - B[None]).sum(-1)
    return np.sqrt(squares) if metric == "euclidean" else squares


def _complex_mul(A: Array, B: Array, sign: int = 1) -> Array:
    a, b, c, d = A[..., 0], A[..., 1], B[..., 0], sign * B[..., 1]
    return np.stack([a * c - b * d, a * d + b * c], -1)


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


_GEMM: dict[str, Any] = {"alpha": 1.0, "transA": 0, "transB": 0}

ROWS = (
    _row(
        "FusedMatMul",
        "A B",
        "Y",
        _fused_matmul_shape,
        _fused_matmul,
        **_GEMM,
        transBatchA=0,
        transBatchB=0,
    ),
    _row(
        "FusedMatMulActivation",
        "A B",
        "Y",
        _fused_matmul_shape,
        _fused_matmul_activation,
        **_GEMM,
        transBatchA=0,
        transBatchB=0,
        activation=REQUIRED,
        activation_alpha=None,
        activation_axis=None,
        activation_beta=None,
        activation_gamma=None,
    ),
    _row("TransposeMatMul", "A B", "Y", _fused_matmul_shape, _fused_matmul, **_GEMM),
    _row(
        "FusedGemm",
        "A B C?",
        "Y",
        gemm_shape,
        _fused_gemm,
        **_GEMM,
        beta=1.0,
        activation=None,
        activation_alpha=None,
        activation_beta=None,
        activation_gamma=None,
    ),
    _row("Gelu", "X", "Y", same, gelu),
    _row("FastGelu", "X bias?", "Y", same, _fast_gelu),
    _row("QuickGelu", "X", "Y", same, lambda x, alpha: x * sigmoid(alpha * x), alpha=1.702),
    _row("BiasGelu", "A B", "C", broadcast, lambda a, b: gelu(a + b)),
    _row("BiasAdd", "X bias skip", "Y", same, lambda x, bias, skip: x + bias + skip),
    _row("Inverse", "X", "Y", same, np.linalg.inv),
    _row("Trilu", "X k?:i64", "Y", same, trilu, upper=1),
    _row(
        "ExpandDims",
        "X axis:i32",
        "Y",
        _expand_dims_shape,
        lambda x, axis: np.expand_dims(x, int(axis)),
    ),
    _row(
        "CDist",
        "A B",
        "C",
        lambda site: [(site.shape(0)[0], site.shape(1)[0])],
        _cdist,
        metric="sqeuclidean",
    ),
    _row("BiasSplitGelu", "X bias", "Y", _halves_shape, _bias_split_gelu),
    _row(
        "SwiGLU",
        "gate up?",
        "output",
        _swiglu_shape,
        _swiglu,
        activation_alpha=1.0,
        activation_beta=0.0,
        limit=0.0,
        round_activation=0,
    ),
    _row("ScaledSiLU", "X scale?:any", "Y", same, _scaled_silu, alpha=1.0),
    _row(
        "GemmFastGelu",
        "X W bias?",
        "Y",
        matmul_shape,
        lambda x, w, bias=None: _fast_gelu(np.matmul(x, w), bias),
    ),
    _row("MulInteger", "A A_zero_point? B B_zero_point?", "C:i32", _mul_shape, _mul_integer),
    _row(
        "ReduceSumInteger",
        "data",
        "reduced:any",
        _sum_integer_shape,
        _sum_integer,
        axes=REQUIRED,
        keepdims=REQUIRED,
    ),
    _row("MatMulInteger16", "A:A B:B", "Y:any", _product_16_shape, _product_16),
    _row("ComplexMul", "A B", "C", broadcast, _complex_mul),
    _row("ComplexMulConj", "A B", "C", broadcast, lambda a, b: _complex_mul(a, b, -1)),
)

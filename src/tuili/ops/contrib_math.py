"""com.microsoft: products and activations that exporters emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.activations import gelu, sigmoid
from tuili.ops.contrib_convolution import activate
from tuili.ops.linear import gemm, gemm_shape, product_shape
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.shapes import broadcast, same
from tuili.ops.site import Site
from tuili.ops.slicing import trilu
from tuili.tensors import Array, Dim

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


def _fused_gemm(A: Array, B: Array, C: Array | None = None, **attrs: Any) -> Array:
    names = ("alpha", "beta", "transA", "transB")
    product = gemm(A, B, C, **{name: attrs[name] for name in names})
    parameters = [attrs["activation_alpha"], attrs["activation_beta"]]
    return activate(product, attrs["activation"], parameters)


def unpack_bits(packed: Array, bits: int, count: int) -> Array:
    """Small integers out of bytes [..., n], the low bits first: [..., count]."""
    if bits == 8:
        return packed[..., :count]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(*packed.shape[:-1], -1)[..., :count]


def _matmul_nbits(
    A: Array,
    B: Array,
    scales: Array,
    zero_points: Array | None = None,
    g_idx: Array | None = None,
    bias: Array | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: int,
    accuracy_level: int,
    weight_prepacked: int,
) -> Array:
    blocks = -(-K // block_size)
    codes = unpack_bits(B.reshape(N, blocks, -1), bits, block_size).astype(np.float32)
    if zero_points is None:
        zeros = np.full((N, blocks), 2.0 ** (bits - 1), np.float32)
    elif zero_points.dtype == np.uint8:
        zeros = unpack_bits(zero_points.reshape(N, -1), bits, blocks).astype(np.float32)
    else:
        zeros = zero_points.reshape(N, blocks).astype(np.float32)
    factors = scales.reshape(N, blocks).astype(np.float32)
    if g_idx is None:
        weights = ((codes - zeros[..., None]) * factors[..., None]).reshape(N, -1)[:, :K]
    else:
        flat = codes.reshape(N, -1)[:, :K]
        weights = (flat - zeros[:, g_idx[:K]]) * factors[:, g_idx[:K]]
    product = A.astype(np.float32) @ weights.T
    return product if bias is None else product + bias


def _nbits_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    site.same(shape[-1], site.attr("K"), "the last axis of A against attribute K")
    return [(*shape[:-1], site.attr("N"))]


# -- small ones ----------------------------------------------------------------------------


def _fast_gelu(X: Array, bias: Array | None = None) -> Array:
    return gelu(X if bias is None else X + bias, "tanh")


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
    _row(
        "MatMulNBits",
        "A B:U scales zero_points?:any g_idx?:i32 bias?",
        "Y",
        _nbits_shape,
        _matmul_nbits,
        K=REQUIRED,
        N=REQUIRED,
        block_size=REQUIRED,
        bits=4,
        accuracy_level=0,
        weight_prepacked=0,
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
    _row("ComplexMul", "A B", "C", broadcast, _complex_mul),
    _row("ComplexMulConj", "A B", "C", broadcast, lambda a, b: _complex_mul(a, b, -1)),
)

"""com.microsoft: products, convolutions, activations and normalisations that exporters emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuili.ops.activations import elu, gelu, hard_sigmoid, leaky_relu, sigmoid, softplus
from tuili.ops.convolution import CONV_ATTRS, conv, conv_shape
from tuili.ops.linear import gemm, gemm_shape, product_shape
from tuili.ops.movement import reshape
from tuili.ops.normalization import normalize, softmax
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.pooling import POOL_ATTRS, max_pool, pool_shape
from tuili.ops.shapes import broadcast, same
from tuili.ops.site import Site
from tuili.ops.slicing import trilu
from tuili.tensors import Array, Dim, Shape

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


def activate(x: Array, name: str | None, parameters: Sequence[float | None]) -> Array:
    """An activation by the name that fused nodes carry."""
    alpha, beta = ([*parameters, None, None])[:2]
    match (name or "").lower():
        case "":
            return x
        case "relu":
            return np.maximum(x, 0)
        case "tanh":
            return np.tanh(x)
        case "sigmoid":
            return sigmoid(x)
        case "leakyrelu":
            return leaky_relu(x, 0.01 if alpha is None else alpha)
        case "elu":
            return elu(x, 1.0 if alpha is None else alpha)
        case "softplus":
            return softplus(x)
        case "hardsigmoid":
            return hard_sigmoid(x, 0.2 if alpha is None else alpha, 0.5 if beta is None else beta)
        case "clip":
            return np.clip(x, alpha, beta)
        case "hardswish":
            return x * hard_sigmoid(x, 1 / 6, 0.5)
        case "gelu":
            return gelu(x)
        case _:
            raise ValueError(f"unknown activation {name!r} in a fused node")


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


# -- convolutions and pools ----------------------------------------------------------------


def _fused_conv(
    X: Array, W: Array, B: Array | None = None, Z: Array | None = None, **attrs: Any
) -> Array:
    name, parameters = attrs.pop("activation"), attrs.pop("activation_params") or ()
    y = conv(X, W, B, **attrs)
    return activate(y if Z is None else y + Z, name, parameters)


class _ChannelsFirst(Site):
    """A site whose first input has its channels last, seen with them in front."""

    def shape(self, index: int = 0) -> Shape:
        shape = super().shape(index)
        return (shape[0], shape[-1], *shape[1:-1]) if index == 0 else shape


def channels_last(rule: Any, weight: int | None = None) -> Any:
    """A shape rule for the same operator over [N, ..., C]."""

    def turned(site: Site) -> list[Result]:
        front = _ChannelsFirst(site.node, site.op, site.contents, site.infer_graph)
        results = rule(front) if weight is None else rule(front, weight)
        return [(shape[0], *shape[2:], shape[1]) for shape in results]

    return turned


def to_front(x: Array) -> Array:
    """[N, ..., C] as [N, C, ...]."""
    return np.moveaxis(x, -1, 1)


def to_back(x: Array) -> Array:
    """[N, C, ...] as [N, ..., C]."""
    return np.moveaxis(x, 1, -1)


def _nhwc_conv(X: Array, W: Array, B: Array | None = None, **attrs: Any) -> Array:
    return to_back(conv(to_front(X), W, B, **attrs))


def _nhwc_fused_conv(
    X: Array, W: Array, B: Array | None = None, Z: Array | None = None, **attrs: Any
) -> Array:
    return to_back(_fused_conv(to_front(X), W, B, None if Z is None else to_front(Z), **attrs))


def _nhwc_max_pool(x: Array, **attrs: Any) -> Array:
    return to_back(max_pool(to_front(x), storage_order=0, count=1, **attrs))


# -- normalisations ------------------------------------------------------------------------


def _skip_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    stats = (*shape[:-1], 1)
    return [shape, stats, stats, shape]


def _skip_layer_norm(
    x: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    *,
    epsilon: float,
) -> tuple[Array, ...]:
    total = x + skip if bias is None else x + bias + skip
    y, mean, inverse = normalize(total.astype(np.float32), (-1,), epsilon)
    y = y * gamma.astype(np.float32)
    return y if beta is None else y + beta, mean, inverse, total


def _skip_rms_norm(
    x: Array, skip: Array, gamma: Array, bias: Array | None = None, *, epsilon: float
) -> tuple[Array, ...]:
    total = x + skip if bias is None else x + skip + bias
    y, inverse = _rms(total, epsilon)
    return y * gamma, np.zeros_like(inverse), inverse, total


def _rms(x: Array, epsilon: float) -> tuple[Array, Array]:
    wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
    inverse = 1 / np.sqrt((wide * wide).mean(-1, keepdims=True) + wide.dtype.type(epsilon))
    return wide * inverse, inverse


def _simplified_norm(
    X: Array, scale: Array, *, axis: int, epsilon: float, stash_type: int
) -> tuple[Array, Array]:
    axis %= X.ndim
    flat = reshape(X, np.array([*X.shape[:axis], -1]))
    y, inverse = _rms(flat, epsilon)
    return y.reshape(X.shape) * scale, inverse.reshape(*X.shape[:axis], *[1] * (X.ndim - axis))


def _simplified_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    axis = site.axis(site.attr("axis"), len(shape))
    return [shape, (*shape[:axis], *[1] * (len(shape) - axis))]


def _group_norm(
    X: Array, gamma: Array, beta: Array, *, activation: int, channels_last: int, epsilon: float,
    groups: int,
) -> Array:  # fmt: skip
    x = (to_front(X) if channels_last else X).astype(np.float32)
    grouped = normalize(x.reshape(x.shape[0], groups, -1), (2,), epsilon)[0].reshape(x.shape)
    column = (-1, *[1] * (x.ndim - 2))
    y = grouped * gamma.reshape(column) + beta.reshape(column)
    y = y * sigmoid(y) if activation else y
    return to_back(y) if channels_last else y


def _embed_shape(site: Site) -> list[Result]:
    batch, length = site.need_rank(0, 2)
    hidden = site.shape(2)[1]
    mask = (batch,) if site.attr("mask_index_type") != 2 else (batch, length)
    return [(batch, length, hidden), mask, (batch, length, hidden)]


def _embed_layer_norm(
    input_ids: Array,
    segment_ids: Array | None,
    words: Array,
    positions: Array,
    segments: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    *,
    epsilon: float,
    mask_index_type: int,
) -> tuple[Array, ...]:
    places = np.arange(input_ids.shape[1]) if position_ids is None else position_ids
    total = words[input_ids] + positions[places]
    if segments is not None and segment_ids is not None:
        total = total + segments[segment_ids]
    y, _, _ = normalize(total.astype(np.float32), (-1,), epsilon)
    lengths = np.zeros(len(input_ids), np.int32) if mask is None else mask.sum(1).astype(np.int32)
    return y * gamma + beta, lengths, total


# -- small ones ----------------------------------------------------------------------------


def _fast_gelu(X: Array, bias: Array | None = None) -> Array:
    return gelu(X if bias is None else X + bias, "tanh")


def _bias_softmax(data: Array, bias: Array, axis: int, is_inner_broadcast: int) -> Array:
    if not is_inner_broadcast and bias.ndim < data.ndim:
        bias = bias.reshape(*bias.shape[:1], *[1] * (data.ndim - bias.ndim), *bias.shape[1:])
    total = data + bias
    axis %= data.ndim
    flat = total.reshape(*total.shape[:axis], -1)
    return softmax(flat, -1).reshape(data.shape)


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
_FUSED = {**CONV_ATTRS, "activation": None, "activation_params": None}
_SKIP = "output mean:f32 inv_std_var:f32 input_skip_bias_sum"
_TINY = 1e-12

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
    _row("FusedConv", "X W B? Z?", "Y", conv_shape, _fused_conv, **_FUSED),
    _row("NhwcConv", "X W B?", "Y", channels_last(conv_shape), _nhwc_conv, **CONV_ATTRS),
    _row("NhwcFusedConv", "X W B? Z?", "Y", channels_last(conv_shape), _nhwc_fused_conv, **_FUSED),
    _row("NhwcMaxPool", "x", "y", channels_last(pool_shape), _nhwc_max_pool, **POOL_ATTRS),
    _row("Gelu", "X", "Y", same, gelu),
    _row("FastGelu", "X bias?", "Y", same, _fast_gelu),
    _row("QuickGelu", "X", "Y", same, lambda x, alpha: x * sigmoid(alpha * x), alpha=1.702),
    _row("BiasGelu", "A B", "C", broadcast, lambda a, b: gelu(a + b)),
    _row("BiasAdd", "X bias skip", "Y", same, lambda x, bias, skip: x + bias + skip),
    _row(
        "BiasSoftmax",
        "data bias",
        "output",
        same,
        _bias_softmax,
        axis=1,
        is_inner_broadcast=REQUIRED,
    ),
    _row(
        "SkipLayerNormalization",
        "input skip gamma beta? bias?",
        _SKIP,
        _skip_shape,
        _skip_layer_norm,
        epsilon=_TINY,
    ),
    _row(
        "SkipSimplifiedLayerNormalization",
        "input skip gamma bias?",
        _SKIP,
        _skip_shape,
        _skip_rms_norm,
        epsilon=_TINY,
    ),
    _row(
        "EmbedLayerNormalization",
        "input_ids:i32 segment_ids?:i32 word_embedding position_embedding segment_embedding?"
        " gamma beta mask?:i32 position_ids?:i32",
        "output mask_index:i32 embedding_sum",
        _embed_shape,
        _embed_layer_norm,
        epsilon=_TINY,
        mask_index_type=0,
    ),
    _row(
        "GroupNorm",
        "X gamma:M beta:M",
        "Y",
        same,
        _group_norm,
        activation=REQUIRED,
        channels_last=1,
        epsilon=1e-5,
        groups=REQUIRED,
    ),
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
    op(
        "SimplifiedLayerNormalization",
        "X scale:V",
        "Y:V inv_std_var:f32",
        _simplified_shape,
        _simplified_norm,
        attrs={"axis": -1, "epsilon": 1e-5, "stash_type": 1},
    ),
)

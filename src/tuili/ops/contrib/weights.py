"""com.microsoft: products and look-ups whose weights are packed integers of a few bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tuili.ir import TensorType
from tuili.ops.op import REQUIRED, Op, Result, op
from tuili.ops.site import Site
from tuili.tensors import Array, DType

# -- the packing ---------------------------------------------------------------------------


def unpack_bits(packed: Array, bits: int, count: int) -> Array:
    """Small integers out of bytes [..., n], the low bits first: [..., count]."""
    if bits == 8:
        return packed[..., :count]
    if 8 % bits == 0:
        each = 8 // bits
        codes = np.empty((*packed.shape, each), np.uint8)
        for place in range(each):
            np.right_shift(packed, np.uint8(place * bits), out=codes[..., place])
        codes &= np.uint8(2**bits - 1)
        return codes.reshape(*packed.shape[:-1], each * packed.shape[-1])[..., :count]
    single = np.unpackbits(packed, axis=-1, count=count * bits, bitorder="little")
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return single.reshape(*packed.shape[:-1], count, bits) @ weights


def pack_bits(codes: Array, bits: int) -> Array:
    """What `unpack_bits` takes apart; a byte must be a whole number of codes."""
    each = 8 // bits
    codes = codes.reshape(*codes.shape[:-1], -1, each)
    packed = codes[..., 0]
    for place in range(1, each):
        packed = packed | codes[..., place] << np.uint8(place * bits)
    return packed


# -- products ------------------------------------------------------------------------------


def nbits_weights(
    B: Array,
    scales: Array,
    zero_points: Array | None,
    g_idx: Array | None,
    attrs: Mapping[str, Any],
) -> Array:
    """The weights [N, K] of a MatMulNBits, in f32."""
    K, N, block_size, bits = (attrs[name] for name in ("K", "N", "block_size", "bits"))
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
        return ((codes - zeros[..., None]) * factors[..., None]).reshape(N, -1)[:, :K]
    flat = codes.reshape(N, -1)[:, :K]
    return (flat - zeros[:, g_idx[:K]]) * factors[:, g_idx[:K]]


def _matmul_nbits(
    A: Array,
    B: Array,
    scales: Array,
    zero_points: Array | None = None,
    g_idx: Array | None = None,
    bias: Array | None = None,
    **attrs: Any,
) -> Array:
    if not B.size:
        # A projection that is left out.
        nothing = np.zeros((*A.shape[:-1], attrs["N"]), np.float32)
        return nothing if bias is None else nothing + bias
    weights = nbits_weights(B, scales, zero_points, g_idx, attrs)
    product = A.astype(np.float32) @ weights.T
    return product if bias is None else product + bias


def _nbits_shape(site: Site) -> list[Result]:
    shape = site.shape(0)
    site.same(shape[-1], site.attr("K"), "the last axis of A against attribute K")
    return [(*shape[:-1], site.attr("N"))]


# The values of a code of 4 bits, times `absmax` of its block.
_FP4 = (0.0, 0.00520833, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
_NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
_VALUES_OF_4_BITS = (np.array([*_FP4, *(-x for x in _FP4)], np.float32), np.array(_NF4, np.float32))


def bnb4_weights(B: Array, absmax: Array, attrs: Mapping[str, Any]) -> Array:
    """The weights [K, N] of a MatMulBnb4, which are flat: the high bits first, a scale a block."""
    rows, columns, block = attrs["N"], attrs["K"], attrs["block_size"]
    codes = np.stack([B.ravel() >> 4, B.ravel() & 15], -1).ravel()[: rows * columns]
    values = _VALUES_OF_4_BITS[attrs["quant_type"]][codes]
    scales = np.repeat(absmax.astype(np.float32), block)[: rows * columns]
    weights = (values * scales).reshape(rows, columns)
    return weights.T if attrs["transB"] else weights


def _matmul_bnb4(A: Array, B: Array, absmax: Array, **attrs: Any) -> Array:
    return A.astype(np.float32) @ bnb4_weights(B, absmax, attrs)


def _bnb4_shape(site: Site) -> list[Result]:
    inner, outer = ("K", "N") if site.attr("transB") else ("N", "K")
    shape = site.shape(0)
    site.same(shape[-1], site.attr(inner), f"the last axis of A against attribute {inner}")
    return [(*shape[:-1], site.attr(outer))]


# -- look-ups ------------------------------------------------------------------------------


def _gather_blocks_shape(site: Site) -> list[Result]:
    data = list(site.shape(0))
    axis = site.axis(site.attr("gather_axis"), len(data))
    if site.dtype(0) is DType.U8:
        data[-1] = data[-1] * (8 // site.attr("bits"))
    shape = (*data[:axis], *site.shape(1), *data[axis + 1 :])
    return [TensorType(site.dtype(2), shape)]


def _gather_blocks(
    data: Array, indices: Array, scales: Array, zero_points: Array | None = None, *,
    bits: int, block_size: int, gather_axis: int, quantize_axis: int,
) -> Array:  # fmt: skip
    """What is gathered is turned into numbers, not the whole table."""
    packed = data.dtype == np.uint8
    size = data.shape[quantize_axis] * (8 // bits if packed else 1)
    gather, along = gather_axis % data.ndim, quantize_axis % data.ndim
    if gather == along:
        # Blocks lie along the gathered axis: each index has its own scale.
        blocks = indices % size // block_size
        codes = np.take(data, indices, gather)
        factors = np.take(scales, blocks, gather).astype(np.float32)
        zeros: Any = 0 if zero_points is None else np.take(zero_points, blocks, gather)
        return ((codes.astype(np.float32) - _numbers(zeros)) * factors).astype(scales.dtype)
    along += indices.ndim - 1 if along > gather else 0
    codes = _taken(data, indices, gather)
    codes = unpack_bits(codes, bits, codes.shape[-1] * (8 // bits)) if packed else codes
    factors = _taken(scales, indices, gather)
    zeros = 2 ** (bits - 1) if packed else 0
    if zero_points is not None:
        zeros = _taken(zero_points, indices, gather)
        zeros = unpack_bits(zeros, bits, factors.shape[-1]) if packed else zeros
        zeros = _stretched(_numbers(zeros), along, block_size or size, size)
    factors = _stretched(factors.astype(np.float32), along, block_size or size, size)
    return ((codes.astype(np.float32) - zeros) * factors).astype(scales.dtype)


def _taken(x: Array, indices: Array, axis: int) -> Array:
    """Along an axis of one element, that element."""
    return np.take(x, indices if x.shape[axis] != 1 else np.zeros_like(indices), axis)


def _numbers(codes: Any) -> Any:
    return codes.astype(np.float32) if isinstance(codes, np.ndarray) else codes


def _stretched(x: Array, axis: int, block: int, size: int) -> Array:
    return np.repeat(x, block, axis).take(np.arange(size), axis)


def _row(name: str, inputs: str, outputs: str, infer: Any, meaning: Any, **attrs: Any) -> Op:
    return op(f"com.microsoft::{name}", inputs, outputs, infer, meaning, attrs=attrs)


ROWS = (
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
    _row(
        "MatMulBnb4",
        "A B:u8 absmax",
        "Y",
        _bnb4_shape,
        _matmul_bnb4,
        K=REQUIRED,
        N=REQUIRED,
        block_size=REQUIRED,
        quant_type=REQUIRED,
        training_mode=0,
        transB=1,
    ),
    _row(
        "GatherBlockQuantized",
        "data:D indices:I scales zero_points?:D",
        "output:any",
        _gather_blocks_shape,
        _gather_blocks,
        bits=4,
        block_size=128,
        gather_axis=0,
        quantize_axis=1,
    ),
)

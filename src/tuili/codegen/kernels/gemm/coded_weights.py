"""The weights of a MatMulNBits, taken out of the model's packing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuili.codegen.kernels.gemm.matmul import is_plain_f32
from tuili.ir import Node, Value
from tuili.ops.contrib.weights import unpack_bits
from tuili.ops.table import attr
from tuili.tensors import Array

OWN_SLOTS = 6  # x, codes, scales, zero points, order of k, bias
_MOST_BITS = 8
_SIZES = ("K", "N", "block_size", "bits")


@dataclass(frozen=True, slots=True)
class CodedWeights:
    """Weights `(code - zero) * scale`; they are taken apart when asked for."""

    packed: Array
    packed_scales: Array
    packed_zeros: Array | None
    depth: int
    width: int
    block: int
    bits: int

    @property
    def blocks(self) -> int:
        """Blocks along k."""
        return -(-self.depth // self.block)

    @property
    def codes(self) -> Array:
        """[N, K], u8."""
        packed = self.packed.reshape(self.width, self.blocks, -1)
        codes = unpack_bits(packed, self.bits, self.block)
        return codes.reshape(self.width, -1)[:, : self.depth]

    @property
    def scales(self) -> Array:
        """[N, blocks]."""
        return self.packed_scales.reshape(self.width, -1)

    @property
    def zeros(self) -> Array | None:
        """[N, blocks]; None where the middle code is zero."""
        if self.packed_zeros is None:
            return None
        rows = self.packed_zeros.reshape(self.width, -1)
        return unpack_bits(rows, self.bits, self.blocks) if self._has_codes else rows

    @property
    def _has_codes(self) -> bool:
        """Whether zero points are packed, like the codes."""
        return self.packed_zeros is not None and self.packed_zeros.dtype == np.uint8

    @property
    def is_whole(self) -> bool:
        """Whether all sizes are as the attributes say: a projection may be left out."""
        factors = self.width * self.blocks
        codes = factors * -(-self.block * self.bits // 8)
        zeros = self.width * -(-self.blocks * self.bits // 8) if self._has_codes else factors
        return (
            0 < self.bits <= _MOST_BITS
            and self.width * self.depth > 0
            and self.packed.dtype == np.uint8
            and (self.packed.size, self.packed_scales.size) == (codes, factors)
            and (self.packed_zeros is None or self.packed_zeros.size == zeros)
        )


def coded_weights(node: Node) -> CodedWeights | None:
    """The weights that kernels can read: known, in the order of k, for x of f32; else None."""
    plain = is_plain_f32(node.required(0)) and is_plain_f32(node.output)
    codes, scales = node.required(1).constant, node.required(2).constant
    zeros, groups = node.input(3), node.input(4)
    if not plain or codes is None or scales is None or groups is not None:
        return None
    if zeros is not None and zeros.constant is None:
        return None
    sizes = (int(attr(node, name)) for name in _SIZES)
    found = CodedWeights(codes, scales, None if zeros is None else zeros.constant, *sizes)
    return found if found.is_whole and _fits(node.input(5), found.width) else None


def _fits(bias: Value | None, width: int) -> bool:
    return bias is None or (is_plain_f32(bias) and bias.shape == (width,))

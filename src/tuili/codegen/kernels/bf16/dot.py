"""Products of bfloat16: pairs of numbers times pairs of weights, added up in lanes of f32.

`vdpbf16ps` (AVX512_BF16) multiplies 32 pairs where a multiply-add of f32 does 16; subnormal numbers
are zero to it (Intel SDM, volume 2). Numbers are rounded to nearest even on their way into memory.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.conv.register_tile import Tile
from tuili.codegen.kernels.quantized.copies import Stored
from tuili.codegen.kernels.quantized.dot import Dot, either_text
from tuili.codegen.kernels.quantized.tile import Packed, flat_panels, in_panels
from tuili.codegen.kernels.rounding import may_round
from tuili.ir import Node
from tuili.tensors import Array, DType

_FAST = """
static inline vf q_dot(vf acc, vi x, vi w)
{
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
}
"""

# Each product is exact in f32; the second one of a pair is added first, as the instruction does.
_PORTABLE = """
static inline vf q_dot(vf acc, vi x, vi w)
{
    acc += v_from_bits(x & ~0xffff) * v_from_bits(w & ~0xffff);
    return acc + v_from_bits(x << 16) * v_from_bits(w << 16);
}
"""

ROUND = """
static inline uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const int is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return (uint16_t)((is_nan ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
"""

HAS_DOT: Final = "defined(__AVX512BF16__) && !defined(TL_PORTABLE)"

# V floats at once; what is subnormal is stored as zero.
STORE: Final = f"""
#if {HAS_DOT}
static inline void q_store(uint16_t *p, vf x)
{{
    typedef int halves __attribute__((vector_size(2 * V)));
    halves y;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(y) : "v"(x));
    memcpy(p, &y, 2 * V);
}}
#else
static inline void q_store(uint16_t *p, vf x)
{{
    for (int l = 0; l < V; l++)
        p[l] = to_bf16(x[l]);
}}
#endif
"""


BF16_DOT: Final = Dot(
    group=2,
    ctype="uint16_t",
    weights=DType.U16,
    shifts={},
    text=either_text(_FAST, _PORTABLE, "uint16_t", HAS_DOT),
    cycles=0.25,
    sum="vf",
)


def multiplies(node: Node, ctx: Context) -> bool:
    """Whether products may be in bfloat16, and the target has an instruction for them."""
    return ctx.target.bf16 and may_round(node, ctx)


def stored_halves(k: KernelBuilder) -> Stored:
    """Floats are rounded; padding holds 0."""
    k.support(ROUND)
    k.support(STORE)
    return Stored(DType.U16, "to_bf16({x})", "0", "q_store({to}, v_load({at}));")


def as_bf16(weights: Array) -> Array:
    """The bits of weights rounded to bfloat16."""
    return weights.astype(DType.BF16.numpy).view(np.uint16)


def pack_halves(steps: Array, tile: Tile, lanes: int) -> Packed:
    """Bits [outputs, *loops, quads, 2] for a tile; there are no extra steps."""
    panels = flat_panels(in_panels(steps, tile, lanes), len(steps), tile, lanes)
    none = np.zeros((0, 0), np.int32)
    return Packed(panels, none.astype(np.int16), none, none, none)

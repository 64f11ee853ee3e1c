"""How a target multiplies codes: groups of neighbouring products added up in 32-bit lanes.

A *dot* takes `group` codes of one pixel, spread over a vector, times `group` weights for each of V
outputs. Codes are stored as `x + shift` in the element type; what the shift and the zero point add
to a sum is known from the weights and taken off at its start.

`vpmaddubsw` (AVX2, AVX-512 without VNNI) adds two products in 16 bits and saturates beyond them.
Pairs of weights that could get there are split at compile time: `clamp_pairs` leaves what is safe
for any codes and gives the rest, which extra, cheaper steps add. Sums are exact everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tuili.codegen.targets import Target
from tuili.tensors import Array, DType

MOST_PAIR = 128  # 255 * 128 is the largest multiple of 255 that 16 bits hold


@dataclass(frozen=True, slots=True)
class Dot:
    """One way; `text` defines `q_add(acc, p, w)`, the codes at p times w added to 32-bit lanes.

    Where several vectors of weights meet the same codes, `q_spread(p)` and `q_dot(acc, x, w)`. What
    saturates has `q_add_even` and `q_dot_even` for the first and third codes and 16-bit weights.
    """

    group: int
    ctype: str  # of codes in memory
    weights: DType
    shifts: dict[DType, int]  # what is added to codes of each type when they are stored
    text: str
    saturates: bool = False
    load: str = ""  # C that takes V groups of weights from a place, where they are not as used
    cycles: float = 0.31  # for V products, as measured or, elsewhere, counted in instructions
    sum: str = "vi"  # the C type of V sums

    @property
    def bytes(self) -> int:
        """The size of a stored code."""
        return 4 // self.group

    @property
    def scalar(self) -> str:
        """The C type of one sum."""
        return {"vi": "int32_t", "vf": "float"}[self.sum]

    def weights_at(self, place: str) -> str:
        """C: V groups of weights."""
        return f"{self.load}({place})" if self.load else f"*(const vi_any *)({place})"

    def reads(self, dtype: DType) -> bool:
        """Whether codes of the type are stored as they are."""
        return self.group == 4 and self.shifts[dtype] == 0


# What the instructions do, in plain C: what other compilers build, and tests of targets that this
# machine cannot run. Lane by lane: four products; pairs of them, cut to 16 bits; two products.
_PORTABLE_QUADS = """
static inline vi q_dot(vi acc, vi x, vi w)
{
    for (int i = 0; i < 32; i += 8)
        acc += ((x << (24 - i)) >> 24 & MASK) * ((w << (24 - i)) >> 24);
    return acc;
}
"""
_PORTABLE_PAIRS = """
static inline vi q_dot(vi acc, vi x, vi w)
{
    for (int i = 0; i < 32; i += 16) {
        vi pair = (x >> i & 255) * ((w << (24 - i)) >> 24)
                + (x >> (i + 8) & 255) * ((w << (16 - i)) >> 24);
        for (int l = 0; l < V; l++)
            pair[l] = pair[l] > 32767 ? 32767 : pair[l] < -32768 ? -32768 : pair[l];
        acc += pair;
    }
    return acc;
}
static inline vi q_dot_even(vi acc, vi x, vi w)
{
    return acc + (x & 255) * ((w << 16) >> 16) + (x >> 16 & 255) * (w >> 16);
}
"""
_PORTABLE_SHORTS = """
static inline vi q_dot(vi acc, vi x, vi w)
{
    const vi low = ((x << 16) >> 16) * ((w << 16) >> 16), high = (x >> 16) * (w >> 16);
    return (vi)((vu)acc + (vu)low + (vu)high);
}
"""

# One statement for each product: sixteen registers are just enough, and gcc, left to schedule the
# parts, would load codes of later pixels early and spill sums.
_ADD_256 = """
static inline vi NAME(vi acc, const TYPE *p, vi w)
{
    const vi other = v_iset1(OTHER);
    vi t;
    __asm__("vpbroadcastd %[p], %[t]\\n\\t"
            STEPS
            "vpaddd %[t], %[acc], %[acc]"
            : [acc] "+x"(acc), [t] "=&x"(t)
            : [w] "x"(w), [other] "x"(other), [p] "m"(*(const int32_t *)p));
    return acc;
}
"""


def _add_256(name: str, ctype: str, other: str, *steps: str) -> str:
    words = {"NAME": name, "TYPE": ctype, "OTHER": other}
    words["STEPS"] = "\n            ".join(f'"{step}\\n\\t"' for step in steps)
    return re.sub("|".join(words), lambda word: words[word[0]], _ADD_256)


_PRODUCTS = "vpmaddwd %[w], %[t], %[t]"
_PAIRS_256 = (
    _add_256(
        "q_add", "uint8_t", "0x00010001",
        "vpmaddubsw %[w], %[t], %[t]", "vpmaddwd %[other], %[t], %[t]",
    )
    + _add_256("q_add_even", "uint8_t", "0x00ff00ff", "vpand %[other], %[t], %[t]", _PRODUCTS)
)  # fmt: skip
_MADD_256 = _add_256("q_add", "int16_t", "0", _PRODUCTS)

# Weights of 8 bits for codes of 16: half the bytes for an instruction that is off the multipliers.
_WIDEN_256 = """
typedef char tl_sixteen __attribute__((vector_size(16), aligned(1), may_alias));
static inline vi q_widen(const int8_t *p)
{
    return (vi)__builtin_ia32_pmovsxbw256(*(const tl_sixteen *)p);
}
"""
_PORTABLE_WIDEN = """
static inline vi q_widen(const int8_t *p)
{
    vi w;
    for (int l = 0; l < V; l++)
        w[l] = (uint16_t)p[2 * l] | (int32_t)((uint32_t)p[2 * l + 1] << 16);
    return w;
}
"""

_PAIRS_512 = """
typedef char tl_bytes __attribute__((vector_size(64)));
typedef short tl_shorts __attribute__((vector_size(64)));
static inline vi q_dot(vi acc, vi x, vi w)
{
    const tl_shorts ones = (tl_shorts)v_iset1(0x00010001);
    const tl_shorts pairs = (tl_shorts)__builtin_ia32_pmaddubsw512_mask(
        (tl_bytes)x, (tl_bytes)w, (tl_shorts)w, -1);
    return acc + (vi)__builtin_ia32_pmaddwd512_mask(pairs, ones, w, -1);
}
static inline vi q_dot_even(vi acc, vi x, vi w)
{
    const tl_shorts even = (tl_shorts)(x & 0x00ff00ff);
    return acc + (vi)__builtin_ia32_pmaddwd512_mask(even, (tl_shorts)w, w, -1);
}
"""

_VNNI = """
static inline vi q_dot(vi acc, vi x, vi w)
{
    return (vi)__builtin_ia32_vpdpbusd_v16si(acc, x, w);
}
"""

_MADD_512 = """
typedef short tl_shorts __attribute__((vector_size(64)));
static inline vi q_dot(vi acc, vi x, vi w)
{
    return acc + (vi)__builtin_ia32_pmaddwd512_mask((tl_shorts)x, (tl_shorts)w, w, -1);
}
"""

_VNNI_SHORTS = """
static inline vi q_dot(vi acc, vi x, vi w)
{
    return (vi)__builtin_ia32_vpdpwssd_v16si(acc, x, w);
}
"""

_MADD_128 = """
typedef short tl_shorts __attribute__((vector_size(16)));
static inline vi q_dot(vi acc, vi x, vi w)
{
    acc += (vi)__builtin_ia32_pmaddwd128((tl_shorts)x, (tl_shorts)w);
    __asm__("" : "+x"(acc));
    return acc;
}
"""

_SDOT = """
static inline vi q_dot(vi acc, vi x, vi w)
{
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(x), "w"(w));
    return acc;
}
"""

_AS_U8 = {DType.U8: 0, DType.I8: 128}
_AS_I8 = {DType.U8: -128, DType.I8: 0}
_AS_IS = {DType.U8: 0, DType.I8: 0}


_SPREAD = """
static inline vi q_spread(const TYPE *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return v_iset1(x);
}
"""
_ADD = """
static inline SUM NAME(SUM acc, const TYPE *p, vi w) { return DOT(acc, q_spread(p), w); }
"""


def whole_text(text: str, ctype: str) -> str:
    """The text with functions that take codes from memory, where it has only those on vectors."""
    spread = _SPREAD.replace("TYPE", ctype)
    adds = "" if "q_add" in text else _ADD.replace("NAME", "q_add").replace("DOT", "q_dot")
    if "q_dot_even" in text:
        adds += _ADD.replace("NAME", "q_add_even").replace("DOT", "q_dot_even")
    total = "vf" if "vf q_dot" in text else "vi"
    return text + spread + adds.replace("TYPE", ctype).replace("SUM", total)


def either_text(
    text: str, portable: str, ctype: str, condition: str = "defined(TL_GCC_X86)"
) -> str:
    """The text where that condition holds, else the portable one, each whole."""
    return f"#if {condition}{whole_text(text, ctype)}#else{whole_text(portable, ctype)}#endif"


def _quads(mask: int) -> str:
    return _PORTABLE_QUADS.replace("MASK", str(mask))


def _shorts(text: str, cycles: float = 0.31) -> Dot:
    portable = _PORTABLE_SHORTS
    whole = either_text(text, portable, "int16_t") if text else whole_text(portable, "int16_t")
    return Dot(2, "int16_t", DType.I16, _AS_IS, whole, cycles=cycles)


def _widened() -> Dot:
    text = _MADD_256 + _WIDEN_256, _PORTABLE_SHORTS + _PORTABLE_WIDEN
    return Dot(2, "int16_t", DType.I8, _AS_IS, either_text(*text, "int16_t"), load="q_widen")


def _pairs(text: str) -> Dot:
    whole = either_text(text, _PORTABLE_PAIRS, "uint8_t")
    return Dot(4, "uint8_t", DType.I8, _AS_U8, whole, saturates=True, cycles=0.26)


_ARM = "defined(__ARM_FEATURE_DOTPROD)"


def _vnni(rate: int) -> tuple[Dot, Dot]:
    """Bytes and shorts where so many vectors are multiplied in a cycle."""
    text = either_text(_VNNI, _quads(255), "uint8_t")
    quads = Dot(4, "uint8_t", DType.I8, _AS_U8, text, cycles=0.25 / rate)
    return quads, _shorts(_VNNI_SHORTS, 0.5 / rate)


# target: (for weights of 8 bits, for any)
_DOTS: dict[str, tuple[Dot, Dot]] = {
    "x86-64-amx": _vnni(2),
    "x86-64-avx512-bf16": _vnni(1),  # Zen 4
    "x86-64-avx512-vnni": _vnni(2),
    "x86-64-avx512": (_pairs(_PAIRS_512), _shorts(_MADD_512)),
    "x86-64-avx2": (_pairs(_PAIRS_256), _shorts(_MADD_256)),
    "x86-64": (_shorts(_MADD_128), _shorts(_MADD_128)),
    "aarch64-dotprod": (
        Dot(
            4,
            "int8_t",
            DType.I8,
            _AS_I8,
            either_text(_SDOT, _quads(-1), "int8_t", _ARM),
            cycles=0.125,
        ),
        _shorts(""),
    ),
    "aarch64": (_shorts(""), _shorts("")),
}


def dots_for(target: Target, weights: Array) -> tuple[Dot, ...]:
    """The ways to multiply with these centred weights, the fastest first."""
    narrow, wide = _DOTS.get(target.name, (_shorts(""), _shorts("")))
    if weights.dtype != np.int8:
        return (wide,)
    return (narrow, _widened()) if target.name == "x86-64-avx2" else (narrow, wide)


def dot_of_shorts(target: Target) -> Dot:
    """How codes and weights of 16 bits are multiplied."""
    return _DOTS.get(target.name, (_shorts(""), _shorts("")))[1]


def clamp_pairs(weights: Array) -> tuple[Array, Array]:
    """Weights [..., 4] as a part whose pairs never saturate with any u8 codes, and the rest.

    The first weight of a pair gives up what is too much. It can: when both have one sign and their
    sum is beyond 128, it is larger than the excess, because the other one is 128 at most. So the
    rest [..., 2] belongs to the first and third codes of a group, and one `q_dot_even` adds it.
    """
    pairs = weights.astype(np.int32).reshape(*weights.shape[:-1], 2, 2)
    high = np.maximum(np.maximum(pairs, 0).sum(-1) - MOST_PAIR, 0)
    low = np.minimum(np.minimum(pairs, 0).sum(-1) + MOST_PAIR, 0)
    rest = high + low
    kept = pairs.copy()
    kept[..., 0] -= rest
    return kept.reshape(weights.shape).astype(np.int8), rest.astype(np.int16)

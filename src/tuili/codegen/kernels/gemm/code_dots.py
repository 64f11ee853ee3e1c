"""How targets multiply codes of up to 4 bits with signed bytes, four products to a 32-bit lane.

    d_add(&a, &b, w, u, p)    adds products of the four signed bytes at `p` to the sums `a` and `b`:
                              with the codes `w` and `u`, which are not negative
    d_sum(a)                  the sums as 32-bit numbers

Where pairs of products are added in 16 bits (`vpmaddubsw`), sums stay so until `d_sum`: 32 products
of at most 15 * 127 give a lane of 16 bits 30480 at most. Other targets widen at once.
"""

from __future__ import annotations

_ADD = """
static inline void d_add(vi *a, vi *b, vi w, vi u, const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    const vi x = v_iset1(four);
    *a = d_dot(*a, w, x), *b = d_dot(*b, u, x);
}
"""

_WIDE = """
static inline vi d_sum(vi a) { return a; }
"""

# What the instructions do, in plain C.
_PORTABLE = (
    """
static inline vi d_dot(vi acc, vi w, vi x)
{
    for (int i = 0; i < 32; i += 8)
        acc += (w >> i & 255) * ((x << (24 - i)) >> 24);
    return acc;
}
"""
    + _WIDE
)

# One statement: gcc, left to schedule the parts, would load x of all rows first and spill sums.
_PAIRS = """
static inline void d_add(vi *a, vi *b, vi w, vi u, const int8_t *p)
{
    vi x, t;
    __asm__("vpbroadcastd %[p], %[x]\\n\\t"
            "vpmaddubsw %[x], %[w], %[t]\\n\\t"
            "vpmaddubsw %[x], %[u], %[x]\\n\\t"
            "vpaddw %[t], %[a], %[a]\\n\\t"
            "vpaddw %[x], %[b], %[b]"
            : [a] "+R"(*a), [b] "+R"(*b), [x] "=&R"(x), [t] "=&R"(t)
            : [w] "R"(w), [u] "R"(u), [p] "m"(*(const int32_t *)p));
}
"""
_PAIRS_256 = (
    _PAIRS.replace('R"', 'x"')
    + """
static inline vi d_sum(vi a)
{
    return (vi)__builtin_ia32_pmaddwd256((tl_v16hi)a, (tl_v16hi)v_iset1(0x00010001));
}
"""
)
_PAIRS_512 = (
    _PAIRS.replace('R"', 'v"')
    + """
typedef short tl_shorts __attribute__((vector_size(64)));
static inline vi d_sum(vi a)
{
    const tl_shorts ones = (tl_shorts)v_iset1(0x00010001);
    return (vi)__builtin_ia32_pmaddwd512_mask((tl_shorts)a, ones, a, -1);
}
"""
)

_VNNI = (
    """
static inline vi d_dot(vi acc, vi w, vi x)
{
    return (vi)__builtin_ia32_vpdpbusd_v16si(acc, w, x);
}
"""
    + _WIDE
)

_SDOT = (
    """
static inline vi d_dot(vi acc, vi w, vi x)
{
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(w), "w"(x));
    return acc;
}
"""
    + _WIDE
)


def _or_portable(text: str, condition: str = "defined(TL_GCC_X86)") -> str:
    add = "" if "d_add" in text else _ADD
    return f"#if {condition}{text}{add}#else{_PORTABLE}{_ADD}#endif"


CODE_DOTS = {
    "x86-64-amx": _or_portable(_VNNI),
    "x86-64-avx512-bf16": _or_portable(_VNNI),
    "x86-64-avx512-vnni": _or_portable(_VNNI),
    "x86-64-avx512": _or_portable(_PAIRS_512),
    "x86-64-avx2": _or_portable(_PAIRS_256),
    "aarch64-dotprod": _or_portable(_SDOT, "defined(__ARM_FEATURE_DOTPROD)"),
}

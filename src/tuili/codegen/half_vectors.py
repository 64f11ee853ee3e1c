"""Numbers of 16 bits as vectors of floats: loads that widen, exactly, and stores that round."""

from __future__ import annotations

from tuili.codegen.targets import Target

_BITS = """
typedef uint16_t vh_any __attribute__((vector_size(2 * V), aligned(2), may_alias));
static inline vi v_load_halves(const uint16_t *p)
{
    return __builtin_convertvector(*(const vh_any *)p, vi);
}
static inline void v_store_halves(uint16_t *p, vi x)
{
    *(vh_any *)p = __builtin_convertvector(x, vh_any);
}
"""

_BITS_8 = """
static inline vi v_load_halves(const uint16_t *p)
{
    short __attribute__((vector_size(16))) x;
    memcpy(&x, p, 16);
    return (vi)__builtin_ia32_pmovzxwd256(x);
}
static inline void v_store_halves(uint16_t *p, vi x)
{
    const vi low = x & 0xffff, h = (vi)__builtin_ia32_packusdw256(low, low);
    const vi q = __builtin_ia32_permvarsi256(h, (vi){0, 1, 4, 5, 0, 1, 4, 5});
    memcpy(p, &q, 16);
}
"""

_BITS_16 = """
static inline vi v_load_halves(const uint16_t *p)
{
    short __attribute__((vector_size(32))) x;
    memcpy(&x, p, 32);
    return (vi)__builtin_ia32_pmovzxwd512_mask(x, (vi){0}, -1);
}
static inline void v_store_halves(uint16_t *p, vi x)
{
    typedef short halves __attribute__((vector_size(32)));
    const halves y = __builtin_ia32_pmovdw512_mask(x, (halves){0}, -1);
    memcpy(p, &y, 32);
}
"""

_BF16 = """
static inline vf v_load_bf16(const uint16_t *p) { return v_from_bits(v_load_halves(p) << 16); }
static inline void v_store_bf16(uint16_t *p, vf x)
{
    const vi i = v_bits(v_round_bf16(x));
    for (int l = 0; l < V; l++)
        p[l] = (uint16_t)((uint32_t)i[l] >> 16);
}
"""

_CODES = """
static inline vf v_load_u16(const uint16_t *p) { return v_to_float(v_load_halves(p)); }
static inline vf v_load_i16(const int16_t *p)
{
    return v_to_float(v_load_halves((const uint16_t *)p) << 16 >> 16);
}
/* Whole floats that lie in the range of the type. */
static inline void v_store_u16(uint16_t *p, vf x) { v_store_halves(p, v_to_int(x)); }
static inline void v_store_i16(int16_t *p, vf x) { v_store_halves((uint16_t *)p, v_to_int(x)); }
"""

# Numbers below 2^-14 have an implied bit too few: it is put there, and taken away again.
_F16 = """
static inline vf v_load_f16(const uint16_t *p)
{
    const vi x = v_load_halves(p), m = (x & 0x7fff) << 13;
    const vf tiny = v_from_bits(m + (113 << 23)) - v_from_bits(v_iset1(113 << 23));
    const vi beyond = (m >= 31 << 23) & (112 << 23);
    const vi wide = v_bits(v_select(m < 1 << 23, tiny, v_from_bits(m + (112 << 23) + beyond)));
    return v_from_bits(wide | (x & 0x8000) << 16);
}
static inline void v_store_f16(uint16_t *p, vf x)
{
    _Float16 y[V];
    for (int l = 0; l < V; l++)
        y[l] = tl_to_f16(x[l]);
    memcpy(p, y, 2 * V);
}
"""

_F16_ARM = """
static inline vf v_load_f16(const uint16_t *p)
{
    __fp16 __attribute__((vector_size(2 * V))) x;
    memcpy(&x, p, 2 * V);
    return __builtin_convertvector(x, vf);
}
static inline void v_store_f16(uint16_t *p, vf x)
{
    const __fp16 __attribute__((vector_size(2 * V))) y =
        __builtin_convertvector(x, __fp16 __attribute__((vector_size(2 * V))));
    memcpy(p, &y, 2 * V);
}
"""

_F16_8 = """
static inline vf v_load_f16(const uint16_t *p)
{
    short __attribute__((vector_size(16))) x;
    memcpy(&x, p, 16);
    return __builtin_ia32_vcvtph2ps256(x);
}
static inline void v_store_f16(uint16_t *p, vf x)
{
    const short __attribute__((vector_size(16))) y = __builtin_ia32_vcvtps2ph256(x, 0);
    memcpy(p, &y, 16);
}
"""

_F16_16 = """
static inline vf v_load_f16(const uint16_t *p)
{
    short __attribute__((vector_size(32))) x;
    memcpy(&x, p, 32);
    return __builtin_ia32_vcvtph2ps512_mask(x, (vf){0}, -1, 4);
}
static inline void v_store_f16(uint16_t *p, vf x)
{
    typedef short halves __attribute__((vector_size(32)));
    const halves y = __builtin_ia32_vcvtps2ph512_mask(x, 0, (halves){0}, -1);
    memcpy(p, &y, 32);
}
"""

_OF_GCC = {8: (_BITS_8, _F16_8), 16: (_BITS_16, _F16_16)}


def half_vectors(target: Target) -> str:
    """C of `v_load_f16`, `v_store_f16` and the same for bf16, u16 and i16."""
    plain = f"{_BITS}{_F16_ARM if target.machine == 'aarch64' else _F16}"
    if target.machine != "x86_64" or target.lanes not in _OF_GCC:
        return f"{plain}{_BF16}{_CODES}"
    gcc = "".join(_OF_GCC[target.lanes])
    return f"#ifdef TL_GCC_X86{gcc}#else{plain}#endif{_BF16}{_CODES}"

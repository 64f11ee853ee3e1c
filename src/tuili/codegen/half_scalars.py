"""Half floats one at a time, for compilers too that have none: on x86 gcc 11, clang before 15.

There an element is a struct of its bits, so that C which would calculate with it does not compile.
"""

HALF_SCALARS = """
#ifdef __FLT16_MANT_DIG__
static inline float tl_from_f16(_Float16 x) { return (float)x; }
static inline _Float16 tl_to_f16(float x) { return (_Float16)x; }
#else
typedef struct { uint16_t bits; } tl_half;
#define _Float16 tl_half
static inline float tl_from_f16(tl_half x)
{
    const int32_t sign = x.bits >> 15, rest = (x.bits & 0x7fff) << 13;
    /* As a float of the same digits it is 2^112 times too small. */
    const float wide = rest >= 0x0f800000 ? s_from_bits(rest | 0x70000000)
                                          : s_from_bits(rest) * 0x1p112f;
    return sign ? -wide : wide;
}
static inline tl_half tl_to_f16(float x)
{
    const uint32_t bits = (uint32_t)s_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    uint32_t half = (rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13;
    if (rest < 0x38800000)      /* subnormal: 0.5 has their last place */
        half = (uint32_t)s_bits(s_from_bits((int32_t)rest) + 0.5f) - 0x3f000000;
    else if (rest > 0x7f800000)
        half = 0x7e00 | (rest >> 13 & 0x3ff);
    else if (rest >= 0x477ff000)        /* 65520 */
        half = 0x7c00;
    return (tl_half){(uint16_t)(sign | half)};
}
#endif
static inline float s_round_f16(float x) { return tl_from_f16(tl_to_f16(x)); }
"""

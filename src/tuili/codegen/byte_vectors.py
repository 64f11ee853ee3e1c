"""Bytes as vectors of floats: loads, stores, and products that are rounded where they stand.

Codes of quantized tensors are computed with as whole floats, which f32 holds exactly.
"""

from __future__ import annotations

from tuili.codegen.targets import Target

_COMMON = """
typedef int8_t vc_any __attribute__((vector_size({lanes}), aligned(1), may_alias));

{loads}static inline vf v_load_u8(const uint8_t *p) { return v_to_float(v_load_bytes(p)); }
/* Bytes of 0 and 1, as masks of 0 and -1. */
static inline vi v_load_mask(const uint8_t *p) { return v_load_bytes(p) != 0; }
static inline vf v_loadn_u8(const uint8_t *p, int64_t n)
{
    uint8_t x[V] = {0};
    memcpy(x, p, (size_t)n);
    return v_load_u8(x);
}
static inline vf v_loadn_i8(const int8_t *p, int64_t n)
{
    int8_t x[V] = {0};
    memcpy(x, p, (size_t)n);
    return v_load_i8(x);
}
/* Keeps the compiler from fusing a product into a sum: codes are fixed to the bit. */
#if defined(TL_PORTABLE)
#define TL_ANY_REGISTER "+m"
#elif defined(__AVX512F__)
#define TL_ANY_REGISTER "+v"
#elif defined(__x86_64__)
#define TL_ANY_REGISTER "+x"
#elif defined(__aarch64__)
#define TL_ANY_REGISTER "+w"
#endif
#ifdef TL_ANY_REGISTER
static inline vf v_exact(vf x) { __asm__("" : TL_ANY_REGISTER(x)); return x; }
static inline float s_exact(float x) { __asm__("" : TL_ANY_REGISTER(x)); return x; }
#else
static inline vf v_exact(vf x) { volatile vf y = x; return y; }
static inline float s_exact(float x) { volatile float y = x; return y; }
#endif
"""

_LOADS = """
static inline vi v_load_bytes(const uint8_t *p)
{
    return __builtin_convertvector(*(const vb_any *)p, vi);
}
static inline vf v_load_i8(const int8_t *p)
{
    return v_to_float(__builtin_convertvector(*(const vc_any *)p, vi));
}
"""

# gcc 12 has no good code for conversions between vectors of eight bytes and of eight numbers.
_LOADS_8 = """
typedef char tl_v16qi __attribute__((vector_size(16)));
typedef long long tl_v2di __attribute__((vector_size(16)));
static inline vi v_load_bytes(const uint8_t *p)
{
    long long x;
    memcpy(&x, p, 8);
    return (vi)__builtin_ia32_pmovzxbd256((tl_v16qi)(tl_v2di){x, 0});
}
static inline vf v_load_i8(const int8_t *p)
{
    long long x;
    memcpy(&x, p, 8);
    return v_to_float((vi)__builtin_ia32_pmovsxbd256((tl_v16qi)(tl_v2di){x, 0}));
}
"""

# Nor between those of sixteen: it takes the bytes apart one by one.
_LOADS_16 = """
typedef char tl_v16qi __attribute__((vector_size(16)));
static inline vi v_load_bytes(const uint8_t *p)
{
    tl_v16qi x;
    memcpy(&x, p, 16);
    return (vi)__builtin_ia32_pmovzxbd512_mask(x, (vi){0}, -1);
}
static inline vf v_load_i8(const int8_t *p)
{
    tl_v16qi x;
    memcpy(&x, p, 16);
    return v_to_float((vi)__builtin_ia32_pmovsxbd512_mask(x, (vi){0}, -1));
}
"""

_STORES = """
/* Whole floats that lie in the range of the type. */
static inline void v_store_u8(uint8_t *p, vf x)
{
    *(vb_any *)p = __builtin_convertvector(v_to_int(x), vb_any);
}
static inline void v_store_i8(int8_t *p, vf x)
{
    *(vc_any *)p = __builtin_convertvector(v_to_int(x), vc_any);
}
"""

_QUANTIZE = """
/* Real numbers to the nearest codes, for a scale of 1; a NaN becomes the lowest code.
 * `small`: they are known to lie in the range of i32. */
static inline void v_quantize_{t}(TYPE *p, vf x, int32_t zero, int small)
{
    (void)small;
    v_store_{t}(p, v_min(v_max(v_round(x) + (float)zero, v_set1(LOW)), v_set1(HIGH)));
}
"""

_QUANTIZE4 = """
static inline void v_quantize4_{t}(
    TYPE *p, vf a, vf b, vf c, vf d, int32_t zero, int small)
{
    v_quantize_{t}(p, a, zero, small), v_quantize_{t}(p + V, b, zero, small);
    v_quantize_{t}(p + 2 * V, c, zero, small), v_quantize_{t}(p + 3 * V, d, zero, small);
}
"""

_STORES_8 = """
typedef short tl_v16hi __attribute__((vector_size(32)));
typedef char tl_v32qi __attribute__((vector_size(32)));
typedef long long tl_v4di __attribute__((vector_size(32)));
static inline vi v_nearest(vf x, int small)
{
    return __builtin_ia32_cvtps2dq256(small ? x : v_min(v_set1(1e9f), x));
}
static inline tl_v16hi v_shorts(vf a, vf b, int32_t zero, int small)
{
    const tl_v16hi pairs = (tl_v16hi)__builtin_ia32_packssdw256(
        v_nearest(a, small), v_nearest(b, small));
    const tl_v16hi added = (tl_v16hi)v_iset1((zero & 0xffff) * 0x10001);
    return zero ? (tl_v16hi)__builtin_ia32_paddsw256(pairs, added) : pairs;
}
"""

# Packs and the sum of 16 bits with the zero point saturate. What no i32 holds becomes the least,
# which is right for a NaN and on the left; on the right it is cut off first.
_QUANTIZE_8 = """
static inline void v_store_{t}(TYPE *p, vf x)
{
    const vi i = v_to_int(x);
    const tl_v16hi h = (tl_v16hi)__builtin_ia32_packssdw256(i, i);
    const vi b = (vi)__builtin_ia32_PACK256(h, h);
    const tl_v4di q = (tl_v4di)__builtin_ia32_permvarsi256(b, (vi){0, 4, 0, 4, 0, 4, 0, 4});
    memcpy(p, &q, 8);
}
static inline void v_quantize_{t}(TYPE *p, vf x, int32_t zero, int small)
{
    const tl_v16hi h = v_shorts(x, x, zero, small);
    const vi b = (vi)__builtin_ia32_PACK256(h, h);
    const tl_v4di q = (tl_v4di)__builtin_ia32_permvarsi256(b, (vi){0, 4, 0, 4, 0, 4, 0, 4});
    memcpy(p, &q, 8);
}
static inline void v_quantize4_{t}(
    TYPE *p, vf a, vf b, vf c, vf d, int32_t zero, int small)
{
    const vi bytes = (vi)__builtin_ia32_PACK256(
        v_shorts(a, b, zero, small), v_shorts(c, d, zero, small));
    const vi q = __builtin_ia32_permvarsi256(bytes, (vi){0, 4, 1, 5, 2, 6, 3, 7});
    memcpy(p, &q, 32);
}
"""

_STORES_16 = """
typedef short tl_v32hi __attribute__((vector_size(64)));
typedef char tl_v64qi __attribute__((vector_size(64)));
static inline vi v_nearest(vf x, int small)
{
    return (vi)__builtin_ia32_cvtps2dq512_mask(
        small ? x : v_min(v_set1(1e9f), x), (vi){0}, -1, 4);
}
static inline tl_v32hi v_shorts(vf a, vf b, int32_t zero, int small)
{
    const tl_v32hi pairs = (tl_v32hi)__builtin_ia32_packssdw512_mask(
        v_nearest(a, small), v_nearest(b, small), (tl_v32hi){0}, -1);
    const tl_v32hi added = (tl_v32hi)v_iset1((zero & 0xffff) * 0x10001);
    return zero ? (tl_v32hi)__builtin_ia32_paddsw512_mask(pairs, added, pairs, -1) : pairs;
}
"""
_QUANTIZE_16 = """
static inline void v_quantize4_{t}(
    TYPE *p, vf a, vf b, vf c, vf d, int32_t zero, int small)
{
    const vi bytes = (vi)__builtin_ia32_PACK512_mask(
        v_shorts(a, b, zero, small), v_shorts(c, d, zero, small), (tl_v64qi){0}, -1);
    const vi q = __builtin_shufflevector(
        bytes, bytes, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    memcpy(p, &q, 64);
}
"""

_PARTS = """
static inline void v_storen_u8(uint8_t *p, vf x, int64_t n)
{
    uint8_t y[V];
    v_store_u8(y, x);
    memcpy(p, y, (size_t)n);
}
static inline void v_storen_i8(int8_t *p, vf x, int64_t n)
{
    int8_t y[V];
    v_store_i8(y, x);
    memcpy(p, y, (size_t)n);
}
"""


_TYPES = (
    {"{t}": "u8", "TYPE": "uint8_t", "PACK": "packuswb", "LOW": "0.0f", "HIGH": "255.0f"},
    {"{t}": "i8", "TYPE": "int8_t", "PACK": "packsswb", "LOW": "-128.0f", "HIGH": "127.0f"},
)


def _for_types(template: str) -> str:
    texts: list[str] = []
    for words in _TYPES:
        text = template
        for word, value in words.items():
            text = text.replace(word, value)
        texts.append(text)
    return "".join(texts)


def byte_vectors(target: Target) -> str:
    """The functions of a target."""
    four = _for_types(_QUANTIZE4)
    loads, stores = _LOADS, _STORES + _for_types(_QUANTIZE)
    if target.machine == "x86_64" and target.lanes == 8:
        loads = f"#ifdef TL_GCC_X86{_LOADS_8}#else{loads}#endif"
        stores = f"#ifdef TL_GCC_X86{_STORES_8}{_for_types(_QUANTIZE_8)}#else{stores}{four}#endif"
    if target.machine == "x86_64" and target.lanes == 16:
        loads = f"#ifdef TL_GCC_X86{_LOADS_16}#else{loads}#endif"
        stores += f"#ifdef TL_GCC_X86{_STORES_16}{_for_types(_QUANTIZE_16)}#else{four}#endif"
    if target.machine != "x86_64" or target.lanes == 4:
        stores += four
    common = _COMMON.replace("{lanes}", str(target.lanes)).replace("{loads}", f"{loads}\n")
    return f"{common}\n{stores}\n{_PARTS}"

"""The prelude: C that every generated unit starts with, for one target.

`V` float lanes; `vf` and `vi` are vectors of float and int32 (GCC/Clang vector extensions), so
+ - * / & | ^ ~ << >> work as they are and comparisons give a `vi` of 0 and -1. What the extensions
lack is here: builtins where the compiler has them, else the same result by other means.
Never compile it with -ffast-math: rounding tricks and NaN tests would go.
"""

from __future__ import annotations

from functools import cache

from tuili.codegen.byte_vectors import byte_vectors
from tuili.codegen.half_scalars import HALF_SCALARS
from tuili.codegen.targets import Target
from tuili.codegen.vector_math import vector_math

_HEAD = """
#include <math.h>
#include <stdint.h>
#include <string.h>

/* TL_PORTABLE leaves instructions out, for machines that lack them: the same results, slowly. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(TL_PORTABLE)
#define TL_GCC_X86
#endif
/* Before version 12 gcc has no name but its own for this. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define __builtin_shufflevector(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#ifndef TL_HIDDEN
#define TL_HIDDEN __attribute__((visibility("hidden")))
#endif

/* Whole numbers, rounding towards minus infinity. */
static inline int64_t tl_floordiv(int64_t a, int64_t b)
{
    const int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}
static inline int64_t tl_floormod(int64_t a, int64_t b) { return a - tl_floordiv(a, b) * b; }
static inline int64_t tl_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t tl_max(int64_t a, int64_t b) { return a > b ? a : b; }

#define V {lanes}
typedef float vf __attribute__((vector_size({size})));
typedef int32_t vi __attribute__((vector_size({size})));
typedef uint32_t vu __attribute__((vector_size({size})));
typedef double vd __attribute__((vector_size(2 * {size})));
typedef float vf_any __attribute__((vector_size({size}), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size({size}), aligned(4), may_alias));
typedef uint32_t vu_any __attribute__((vector_size({size}), aligned(4), may_alias));
typedef uint8_t vb_any __attribute__((vector_size({lanes}), aligned(1), may_alias));

static inline vf v_load(const float *p) { return *(const vf_any *)p; }
static inline void v_store(float *p, vf x) { *(vf_any *)p = x; }
static inline vf v_set1(float x) { return x - (vf){0}; }
static inline vi v_iset1(int32_t x) { return x - (vi){0}; }
/* The mask of the first n lanes. */
static inline vi v_head(int64_t n) { return (vi){{iota}} < (int32_t)n; }
static inline vi v_bits(vf x) { return (vi)x; }
static inline vf v_from_bits(vi x) { return (vf)x; }
static inline vf v_to_float(vi x) { return __builtin_convertvector(x, vf); }
static inline vi v_to_int(vf x) { return __builtin_convertvector(x, vi); }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_select(vi m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
static inline vf v_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
/* x - n pi / 2, and the whole number n, below 2^20: in double, which loses nothing there. */
static inline vf v_turned(vf x, vf *turns)
{
    const vd a = __builtin_convertvector(x, vd);
    const vd n = a * 0.63661977236758134 + 6755399441055744.0 - 6755399441055744.0;
    *turns = __builtin_convertvector(n, vf);
    return __builtin_convertvector(a - n * 1.5707963267341256 - n * 6.0771005065061922e-11, vf);
}
/* Whether any number is beyond a limit, or none. */
static inline int v_is_beyond(vf x, float limit)
{
    const vi m = ~(v_abs(x) <= v_set1(limit));
    int any = 0;
    for (int l = 0; l < V; l++)
        any |= m[l];
    return any;
}
static inline vf v_copysign(vf x, vf sign)
{
    return (vf)(((vi)x & 0x7fffffff) | ((vi)sign & INT32_MIN));
}
"""

_MASKS = """
/* Masks of 0 and -1, as bytes of 0 and 1. */
static inline void v_store_mask(uint8_t *p, vi m)
{
    *(vb_any *)p = __builtin_convertvector(m & 1, vb_any);
}
"""

# gcc 12 takes such a vector apart, number by number; two packs do.
_MASKS_8 = """
#ifdef TL_GCC_X86
static inline void v_store_mask(uint8_t *p, vi m)
{
    typedef int four __attribute__((vector_size(16)));
    typedef short shorts __attribute__((vector_size(16)));
    const four low = __builtin_shufflevector(m, m, 0, 1, 2, 3);
    const four high = __builtin_shufflevector(m, m, 4, 5, 6, 7);
    const shorts halves = (shorts)__builtin_ia32_packssdw128(low, high);
    const long long bytes = ((long long __attribute__((vector_size(16))))
        __builtin_ia32_packsswb128(halves, halves))[0] & 0x0101010101010101;
    memcpy(p, &bytes, 8);
}
#else
{masks}
#endif
"""

_SCALAR = """
static inline float s_set1(float x) { return x; }
static inline int32_t s_bits(float x) { int32_t i; memcpy(&i, &x, 4); return i; }
static inline float s_from_bits(int32_t i) { float x; memcpy(&x, &i, 4); return x; }
static inline float s_to_float(int32_t x) { return (float)x; }
static inline float s_max(float a, float b) { return a > b ? a : b; }
static inline float s_min(float a, float b) { return a < b ? a : b; }
static inline float s_select(int32_t m, float a, float b) { return m ? a : b; }
static inline float s_abs(float x) { return fabsf(x); }
static inline float s_turned(float x, float *turns)
{
    const double a = x, n = a * 0.63661977236758134 + 6755399441055744.0 - 6755399441055744.0;
    *turns = (float)n;
    return (float)(a - n * 1.5707963267341256 - n * 6.0771005065061922e-11);
}
static inline int s_is_beyond(float x, float limit) { return !(fabsf(x) <= limit); }
static inline float s_copysign(float x, float sign) { return copysignf(x, sign); }
static inline float s_sqrt(float x) { return __builtin_sqrtf(x); }
static inline float s_floor(float x) { return floorf(x); }
static inline float s_ceil(float x) { return ceilf(x); }
static inline float s_round(float x) { return nearbyintf(x); }
static inline float s_scale(float x, float n)
{
    const int32_t k = s_bits(n + 12582912.0f) - 0x4b400000, half = k >> 1;
    const float a = s_from_bits((int32_t)((uint32_t)(half + 127) << 23));
    return x * a * s_from_bits((int32_t)((uint32_t)(k - half + 127) << 23));
}
"""

# Operations by name, in plain C.
# max and min return b when either side is a NaN, as x86 does.
_GENERIC = {
    "max": "return v_select(a > b, a, b);",
    "min": "return v_select(a < b, a, b);",
    "sqrt": "for (int l = 0; l < V; l++) a[l] = __builtin_sqrtf(a[l]);\n    return a;",
    # From 2^23 on floats are whole; below, adding 2^23 rounds half to even.
    # The sign comes last: clang 19 puts it and a choice after it into one wrong vpternlogd.
    "round": "const vf x = v_abs(a), r = x + 8388608.0f - 8388608.0f;\n"
    "    return v_copysign(v_select(x < v_set1(8388608.0f), r, x), a);",
    "floor": "const vf r = v_round(a);\n    return v_copysign(v_select(r > a, r - 1.0f, r), a);",
    "ceil": "const vf r = v_round(a);\n    return v_copysign(v_select(r < a, r + 1.0f, r), a);",
    # Two factors: 2^n may lie outside the floats; a subnormal result rounds once.
    "scale": "const vi k = v_bits(b + 12582912.0f) - 0x4b400000, half = k >> 1;\n"
    "    return a * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);",
    "round_f16": "for (int l = 0; l < V; l++) a[l] = s_round_f16(a[l]);\n    return a;",
    "round_bf16": "const vi i = v_bits(a), r = (i + 0x7fff + (i >> 16 & 1)) & -65536;\n"
    "    return v_select(a == a, v_from_bits(r), v_from_bits(i | 0x400000));",
}
_BINARY = ("max", "min", "scale")

_BUILTINS: dict[int, dict[str, str]] = {
    16: {
        "max": "__builtin_ia32_maxps512_mask(a, b, a, -1, 4)",
        "min": "__builtin_ia32_minps512_mask(a, b, a, -1, 4)",
        "sqrt": "__builtin_ia32_sqrtps512_mask(a, a, -1, 4)",
        "round": "__builtin_ia32_rndscaleps_mask(a, 8, a, -1, 4)",
        "floor": "__builtin_ia32_rndscaleps_mask(a, 9, a, -1, 4)",
        "ceil": "__builtin_ia32_rndscaleps_mask(a, 10, a, -1, 4)",
        "scale": "__builtin_ia32_scalefps512_mask(a, b, a, -1, 4)",
        "round_f16": "__builtin_ia32_vcvtph2ps512_mask("
        "__builtin_ia32_vcvtps2ph512_mask(a, 0, (short __attribute__((vector_size(32)))){0}, -1),"
        " a, -1, 4)",
    },
    8: {
        "max": "__builtin_ia32_maxps256(a, b)",
        "min": "__builtin_ia32_minps256(a, b)",
        "sqrt": "__builtin_ia32_sqrtps256(a)",
        "round": "__builtin_ia32_roundps256(a, 8)",
        "floor": "__builtin_ia32_roundps256(a, 9)",
        "ceil": "__builtin_ia32_roundps256(a, 10)",
        "round_f16": "__builtin_ia32_vcvtph2ps256(__builtin_ia32_vcvtps2ph256(a, 0))",
    },
    4: {
        "max": "__builtin_ia32_maxps(a, b)",
        "min": "__builtin_ia32_minps(a, b)",
        "sqrt": "__builtin_ia32_sqrtps(a)",
    },
}

_TAIL_LOOP = """
/* The first n < V lanes; the rest is zero, and memory beyond is not touched. */
static inline vf v_loadn(const float *p, int64_t n)
{
    vf x = {0};
    memcpy(&x, p, (size_t)n * 4);
    return x;
}
static inline void v_storen(float *p, vf x, int64_t n) { memcpy(p, &x, (size_t)n * 4); }
"""

_TAIL_16 = """
/* The first n < V lanes; the rest is zero, and memory beyond is not touched. */
static inline vf v_loadn(const float *p, int64_t n)
{
    return __builtin_ia32_loadups512_mask(p, (vf){0}, (uint16_t)((1u << n) - 1));
}
static inline void v_storen(float *p, vf x, int64_t n)
{
    __builtin_ia32_storeups512_mask(p, x, (uint16_t)((1u << n) - 1));
}
"""

_TAIL_8 = """
static const int32_t tl_lane_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
/* The first n < V lanes; the rest is zero, and memory beyond is not touched. */
static inline vf v_loadn(const float *p, int64_t n)
{
    return __builtin_ia32_maskloadps256((const vf *)p, *(const vi_any *)(tl_lane_masks + 8 - n));
}
static inline void v_storen(float *p, vf x, int64_t n)
{
    __builtin_ia32_maskstoreps256((vf *)p, *(const vi_any *)(tl_lane_masks + 8 - n), x);
}
"""

# What C leaves undefined, with NumPy's results: division by zero, too large numbers, shifts.
_NUMBERS = """
static inline int64_t tl_div(int64_t a, int64_t b)
{
    return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
static inline int64_t tl_fmod(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline int64_t tl_mod(int64_t a, int64_t b)
{
    return b == 0 || b == -1 ? 0 : tl_floormod(a, b);
}
static inline uint64_t tl_udiv(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
static inline uint64_t tl_umod(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }
/* The rest of floats. Their quotient, below 2^26, is further from the next whole number than a
   double rounds, and no product or difference of these numbers rounds at all. */
static inline double tl_fmod_float(double a, double b)
{
    const double q = a / b;
    if (fabs(q) < 0x1p26 && fabs(b) < INFINITY)
        return copysign(fabs(a - (double)(int64_t)q * b), a);
    return fmod(a, b);
}
static inline double tl_mod_float(double a, double b)
{
    const double r = fmod(a, b);
    return r == 0 ? copysign(0.0, b) : (r < 0) != (b < 0) ? r + b : r;
}
#ifdef TL_GCC_X86 /* its instruction has the same idea of what is too large */
static inline int64_t tl_to_int(double x)
{
    typedef double two __attribute__((vector_size(16)));
    return __builtin_ia32_cvttsd2si64((two){x});
}
#else
static inline int64_t tl_to_int(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}
#endif
/* The low bits of tl_to_int, exact without numbers of 64 bits or a branch: loops are vectors. */
static inline int32_t tl_to_i32(float x)
{
    const float a = s_from_bits(s_bits(x) & -(int32_t)(fabsf(x) < 0x1p63f));
    const float rest = a - (float)(int32_t)(a * 0x1p-32f) * 0x1p32f;
    const int32_t wraps = (rest < -0x1p31f) - (rest >= 0x1p31f);
    return (int32_t)(rest + (float)wraps * 0x1p32f);
}
static inline uint64_t tl_to_uint(double x)
{
    return x >= 0x1p63 && x < 0x1p64 ? (uint64_t)x : (uint64_t)tl_to_int(x);
}
static inline uint64_t tl_power(uint64_t base, uint64_t exponent)
{
    uint64_t result = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1)
            result *= base;
    return result;
}

static inline float tl_from_bf16(uint16_t x) { return s_from_bits((int32_t)((uint32_t)x << 16)); }
static inline uint16_t tl_to_bf16(float x)
{
    const uint32_t bits = (uint32_t)s_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline float s_round_bf16(float x) { return tl_from_bf16(tl_to_bf16(x)); }
"""

_TAILS = {16: _TAIL_16, 8: _TAIL_8}


def _operations(target: Target) -> str:
    """max, min, sqrt, rounding and scaling; builtins of gcc on x86, else plain C."""
    builtins = _BUILTINS[target.lanes] if target.machine == "x86_64" else {}
    parts: list[str] = []
    for name, generic in _GENERIC.items():
        args = "vf a, vf b" if name in _BINARY else "vf a"
        plain = f"static inline vf v_{name}({args})\n{{\n    {generic}\n}}"
        if name in builtins:
            fast = f"static inline vf v_{name}({args}) {{ return {builtins[name]}; }}"
            parts.append(f"#ifdef TL_GCC_X86\n{fast}\n#else\n{plain}\n#endif")
        else:
            parts.append(plain)
    tail = _TAILS.get(target.lanes) if builtins else None
    parts.append(f"#ifdef TL_GCC_X86{tail}#else{_TAIL_LOOP}#endif" if tail else _TAIL_LOOP)
    return "\n".join(parts)


def _horizontal(lanes: int) -> str:
    """Reductions of a vector to a number, by halves."""
    steps = [lanes >> shift for shift in range(1, lanes.bit_length())]
    parts: list[str] = []
    for name, combine in (("sum", "x + {}"), ("hmax", "v_max(x, {})"), ("hmin", "v_min(x, {})")):
        lines = [f"static inline float v_{name}(vf x)", "{"]
        for step in steps:
            order = ", ".join(str(lane ^ step) for lane in range(lanes))
            other = f"__builtin_shufflevector(x, x, {order})"
            lines.append(f"    x = {combine.format(other)};")
        parts.append("\n".join([*lines, "    return x[0];", "}"]))
    return "\n".join(parts)


def _transpose(lanes: int) -> str:
    """A square of V x V floats, transposed in registers: block swaps of 1, 2, 4, ... lanes."""
    lines = [
        "/* to[c][r] = from[r][c] for up to V rows and columns; the strides are distances of rows.",
        "   `lanes` floats of every row are written, zeros where there is no row to read. */",
        "static inline __attribute__((always_inline)) void tl_transpose_part(",
        "    const float *from, int64_t from_stride, int64_t rows, int64_t columns,",
        "    float *to, int64_t to_stride, int64_t lanes)",
        "{",
        "    vf r[V];",
        "    for (int i = 0; i < V; i++)",
        "        r[i] = i >= rows ? v_set1(0.0f)",
        "             : columns < V ? v_loadn(from + i * from_stride, columns)",
        "             : v_load(from + i * from_stride);",
    ]
    step = 1
    while step < lanes:
        low = [j if not j & step else lanes + j - step for j in range(lanes)]
        high = [j + step if not j & step else lanes + j for j in range(lanes)]
        first, second = (", ".join(map(str, order)) for order in (low, high))
        lines += [
            "    for (int i = 0; i < V; i++)",
            f"        if (!(i & {step})) {{",
            f"            const vf a = r[i], b = r[i + {step}];",
            f"            r[i] = __builtin_shufflevector(a, b, {first});",
            f"            r[i + {step}] = __builtin_shufflevector(a, b, {second});",
            "        }",
        ]
        step *= 2
    return "\n".join(
        [
            *lines,
            "    for (int i = 0; i < V; i++)",
            "        if (i < columns) {",
            "            if (lanes < V)",
            "                v_storen(to + i * to_stride, r[i], lanes);",
            "            else",
            "                v_store(to + i * to_stride, r[i]);",
            "        }",
            "}",
            "static inline void tl_transpose(",
            "    const float *from, int64_t from_stride, float *to, int64_t to_stride)",
            "{",
            "    tl_transpose_part(from, from_stride, V, V, to, to_stride, V);",
            "}",
        ]
    )


@cache
def prelude(target: Target) -> str:
    """The prelude of a target."""
    head = _HEAD.replace("{lanes}", str(target.lanes)).replace("{size}", str(4 * target.lanes))
    head = head.replace("{{iota}}", f"{{{', '.join(map(str, range(target.lanes)))}}}")
    masks = _MASKS_8.replace("{masks}", _MASKS.strip()) if target.lanes == 8 else _MASKS
    parts = [head, masks, _SCALAR, HALF_SCALARS, _operations(target), _horizontal(target.lanes)]
    parts.append(vector_math())
    return "\n".join([*parts, _transpose(target.lanes), _NUMBERS, byte_vectors(target)])

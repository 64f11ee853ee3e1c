
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

#define V 8
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef double vd __attribute__((vector_size(2 * 32)));
typedef float vf_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t vu_any __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint8_t vb_any __attribute__((vector_size(8), aligned(1), may_alias));

static inline vf v_load(const float *p) { return *(const vf_any *)p; }
static inline void v_store(float *p, vf x) { *(vf_any *)p = x; }
static inline vf v_set1(float x) { return x - (vf){0}; }
static inline vi v_iset1(int32_t x) { return x - (vi){0}; }
/* The mask of the first n lanes. */
static inline vi v_head(int64_t n) { return (vi){0, 1, 2, 3, 4, 5, 6, 7} < (int32_t)n; }
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


/* Masks of 0 and -1, as bytes of 0 and 1. */
static inline void v_store_mask(uint8_t *p, vi m)
{
    *(vb_any *)p = __builtin_convertvector(m & 1, vb_any);
}


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

#ifdef TL_GCC_X86
static inline vf v_max(vf a, vf b) { return __builtin_ia32_maxps256(a, b); }
#else
static inline vf v_max(vf a, vf b)
{
    return v_select(a > b, a, b);
}
#endif
#ifdef TL_GCC_X86
static inline vf v_min(vf a, vf b) { return __builtin_ia32_minps256(a, b); }
#else
static inline vf v_min(vf a, vf b)
{
    return v_select(a < b, a, b);
}
#endif
#ifdef TL_GCC_X86
static inline vf v_sqrt(vf a) { return __builtin_ia32_sqrtps256(a); }
#else
static inline vf v_sqrt(vf a)
{
    for (int l = 0; l < V; l++) a[l] = __builtin_sqrtf(a[l]);
    return a;
}
#endif
#ifdef TL_GCC_X86
static inline vf v_round(vf a) { return __builtin_ia32_roundps256(a, 8); }
#else
static inline vf v_round(vf a)
{
    const vf x = v_abs(a), r = x + 8388608.0f - 8388608.0f;
    return v_copysign(v_select(x < v_set1(8388608.0f), r, x), a);
}
#endif
#ifdef TL_GCC_X86
static inline vf v_floor(vf a) { return __builtin_ia32_roundps256(a, 9); }
#else
static inline vf v_floor(vf a)
{
    const vf r = v_round(a);
    return v_copysign(v_select(r > a, r - 1.0f, r), a);
}
#endif
#ifdef TL_GCC_X86
static inline vf v_ceil(vf a) { return __builtin_ia32_roundps256(a, 10); }
#else
static inline vf v_ceil(vf a)
{
    const vf r = v_round(a);
    return v_copysign(v_select(r < a, r + 1.0f, r), a);
}
#endif
static inline vf v_scale(vf a, vf b)
{
    const vi k = v_bits(b + 12582912.0f) - 0x4b400000, half = k >> 1;
    return a * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
}
#ifdef TL_GCC_X86
static inline vf v_round_f16(vf a) { return __builtin_ia32_vcvtph2ps256(__builtin_ia32_vcvtps2ph256(a, 0)); }
#else
static inline vf v_round_f16(vf a)
{
    for (int l = 0; l < V; l++) a[l] = s_round_f16(a[l]);
    return a;
}
#endif
static inline vf v_round_bf16(vf a)
{
    const vi i = v_bits(a), r = (i + 0x7fff + (i >> 16 & 1)) & -65536;
    return v_select(a == a, v_from_bits(r), v_from_bits(i | 0x400000));
}
#ifdef TL_GCC_X86
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
#else
/* The first n < V lanes; the rest is zero, and memory beyond is not touched. */
static inline vf v_loadn(const float *p, int64_t n)
{
    vf x = {0};
    memcpy(&x, p, (size_t)n * 4);
    return x;
}
static inline void v_storen(float *p, vf x, int64_t n) { memcpy(p, &x, (size_t)n * 4); }
#endif
static inline float v_sum(vf x)
{
    x = x + __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
    x = x + __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5);
    x = x + __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
    return x[0];
}
static inline float v_hmax(vf x)
{
    x = v_max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = v_max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    x = v_max(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
    return x[0];
}
static inline float v_hmin(vf x)
{
    x = v_min(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
    x = v_min(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    x = v_min(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6));
    return x[0];
}
#define TL_LANES for (int l = 0; l < V; l++)
static inline float s_sin_far(float x) { return sinf(x); }
static inline vf v_sin_far(vf x) { TL_LANES x[l] = sinf(x[l]); return x; }
static inline float s_cos_far(float x) { return cosf(x); }
static inline vf v_cos_far(vf x) { TL_LANES x[l] = cosf(x[l]); return x; }
static inline double d_sinh(double x) { return sinh(x); }
static inline float s_sinh(float x) { return sinhf(x); }
static inline vf v_sinh(vf x) { TL_LANES x[l] = sinhf(x[l]); return x; }
static inline double d_cosh(double x) { return cosh(x); }
static inline float s_cosh(float x) { return coshf(x); }
static inline vf v_cosh(vf x) { TL_LANES x[l] = coshf(x[l]); return x; }
static inline double d_asinh(double x) { return asinh(x); }
static inline float s_asinh(float x) { return asinhf(x); }
static inline vf v_asinh(vf x) { TL_LANES x[l] = asinhf(x[l]); return x; }
static inline double d_acosh(double x) { return acosh(x); }
static inline float s_acosh(float x) { return acoshf(x); }
static inline vf v_acosh(vf x) { TL_LANES x[l] = acoshf(x[l]); return x; }
static inline double d_atanh(double x) { return atanh(x); }
static inline float s_atanh(float x) { return atanhf(x); }
static inline vf v_atanh(vf x) { TL_LANES x[l] = atanhf(x[l]); return x; }
static inline float s_pow(float x, float y) { return powf(x, y); }
static inline vf v_pow(vf x, vf y)
{
    TL_LANES x[l] = powf(x[l], y[l]);
    return x;
}

/* e^x = 2^n e^r, |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to a whole number. */
static inline vf v_exp(vf x)
{
    const vf c = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x));
    const vf n = c * 1.44269504f + 12582912.0f - 12582912.0f;
    const vf r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    vf q = r * 0.00138145988f + 0.00836871658f;
    q = q * r + 0.041668389f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    return v_scale(q * (r * r) + r + 1.0f, n);
}

/* e^x where 1 + e^x is what matters: 0 from -87.7 down, infinite from 88.4 on. 2^n is made of the
   sum that rounds x / ln 2, which reaches neither subnormal powers nor those beyond 2^127. */
static inline vf v_exp_short(vf x)
{
    const vf c = v_min(v_set1(89.0f), v_max(v_set1(-88.0f), x));
    const vf t = c * 1.44269504f + 12583039.0f, n = t - 12583039.0f;
    const vf r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    const vf power = v_from_bits((v_bits(t) & 255) << 23);
    vf q = r * 0.00138145988f + 0.00836871658f;
    q = q * r + 0.041668389f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    return (q * (r * r) + r + 1.0f) * power;
}

/* e^x - 1 without cancellation: 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)). */
static inline vf v_expm1(vf x)
{
    const vf c = v_min(v_set1(89.0f), v_max(v_set1(-30.0f), x));
    const vf n = c * 1.44269504f + 12582912.0f - 12582912.0f;
    const vf r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    vf q = r * 0.000198458787f + 0.00139406277f;
    q = q * r + 0.00833338965f;
    q = q * r + 0.0416663624f;
    q = q * r + 0.166666657f;
    q = q * r + 0.5f;
    const vf s = v_scale(v_set1(0.5f), n);
    return 2.0f * (s * (q * (r * r) + r) + (s - 0.5f));
}

/* x = 2^e m, 2/3 <= m < 4/3; log x = e ln 2 + log1p(m - 1). */
static inline vf v_log(vf x)
{
    const vf tiny = v_select(x < v_set1(1.17549435e-38f), v_set1(8388608.0f), v_set1(1.0f));
    const vi bits = v_bits(v_abs(x * tiny)) - 0x3f2aaaab;
    const vf f = v_from_bits((bits & 0x007fffff) + 0x3f2aaaab) - 1.0f;
    const vf e = v_to_float(bits >> 23) - v_select(tiny > v_set1(1.0f), v_set1(23.0f), v_set1(0));
    vf q = f * -0.12891683f + 0.139844388f;
    q = q * f - 0.121842615f;
    q = q * f + 0.140058681f;
    q = q * f - 0.16680488f;
    q = q * f + 0.200104058f;
    q = q * f - 0.249997973f;
    q = q * f + 0.333332151f;
    /* Never a sum of two products: which one a compiler fuses is not fixed. */
    vf y = e * -2.12194440e-4f + ((q * f - 0.5f) * (f * f) + f);
    y = e * 0.693359375f + y;
    y = v_select(x < v_set1(INFINITY), y, x);
    y = v_select(x == v_set1(0.0f), v_set1(-INFINITY), y);
    return v_select(x < v_set1(0.0f), v_set1(NAN), y);
}

/* log(1 + x) for x >= 0, with what 1 + x rounds away put back. */
static inline vf v_log1p(vf x)
{
    const vf u = 1.0f + x;
    const vf lost = (x - (u - 1.0f)) / u;
    return v_log(u) + v_select(u < v_set1(INFINITY), lost, v_set1(0.0f));
}

static inline vf v_tanh(vf x)
{
    const vf a = v_abs(x), x2 = x * x;
    vf q = x2 * -0.00570498733f + 0.020639088f;
    q = q * x2 - 0.0537397154f;
    q = q * x2 + 0.133314416f;
    q = q * x2 - 0.333332807f;
    const vf small = q * (x2 * x) + x;
    const vf large = 1.0f - 2.0f / (v_exp_short(a + a) + 1.0f);
    return v_select(a < v_set1(0.625f), small, v_copysign(large, x));
}

/* Near 0 an odd polynomial, else 1 - e^p(|x|); erf rounds to 1 from 3.93 on. */
static inline vf v_erf(vf x)
{
    const vf x2 = x * x;
    vf q = x2 * -0.000563144393f + 0.00491755735f;
    q = q * x2 - 0.0267113168f;
    q = q * x2 + 0.112801805f;
    q = q * x2 - 0.37612325f;
    q = q * x2 + 0.128379121f;
    const vf small = q * x + x;
    const vf a = v_min(v_set1(4.0f), v_abs(x));
    vf p = a * 0.000186379213f - 0.00294765853f;
    p = p * a + 0.0218380652f;
    p = p * a - 0.103106759f;
    p = p * a - 0.638144851f;
    p = p * a - 1.12708914f;
    p = p * a - 0.000341522857f;
    return v_select(a < v_set1(1.0f), small, v_copysign(1.0f - v_exp(p), x));
}

/* x = n pi / 2 + r, |r| <= pi / 4: the sine or cosine of r, by turns; `shift` is 1 for a cosine. */
static inline vf v_wave(vf x, int32_t shift)
{
    vf n;
    const vf r = v_turned(x, &n), u = r * r;
    vf s = u * -0.000195172346f + 0.00833217769f;
    s = s * u - 0.166666549f;
    s = s * (u * r) + r;
    vf c = u * 2.44383793e-05f - 0.00138873669f;
    c = c * u + 0.0416666469f;
    c = c * (u * u) + (1.0f - 0.5f * u);
    const vi turns = v_bits(n + 12582912.0f) + shift;
    const vf y = v_select((turns & 1) != 0, c, s);
    return v_select((turns & 2) != 0, -y, y);
}

/* Beyond a million the C library knows better, and what is no number it leaves so. */
static inline vf v_sin(vf x)
{
    const vf y = v_wave(x, 0);
    return v_is_beyond(x, 1e6f) ? v_select(v_abs(x) <= v_set1(1e6f), y, v_sin_far(x)) : y;
}

static inline vf v_cos(vf x)
{
    const vf y = v_wave(x, 1);
    return v_is_beyond(x, 1e6f) ? v_select(v_abs(x) <= v_set1(1e6f), y, v_cos_far(x)) : y;
}

static inline vf v_tan(vf x) { return v_sin(x) / v_cos(x); }

/* Around 0, pi / 4 or pi / 2, whichever leaves a tangent of at most tan(pi / 8). */
static inline vf v_atan(vf x)
{
    const vf a = v_abs(x);
    const vi far = a > v_set1(2.41421356f), middle = a > v_set1(0.414213562f);
    const vf over = v_select(far, v_set1(-1.0f), v_select(middle, a - 1.0f, a));
    const vf under = v_select(far, a, v_select(middle, a + 1.0f, v_set1(1.0f)));
    const vf t = over / under, u = t * t;
    vf q = u * 0.0806030780f - 0.138798490f;
    q = q * u + 0.199779257f;
    q = q * u - 0.333329558f;
    const vf from = v_select(far, v_set1(1.57079637f), v_set1(0.785398185f));
    const vf y = q * (u * t) + t;
    return v_copysign(v_select(middle, from + y, y), x);
}

/* asin(r), where r is |x|, or sqrt((1 - |x|) / 2) from 1/2 on. */
static inline vf v_half_asin(vf a)
{
    const vi far = a > v_set1(0.5f);
    const vf u = v_select(far, (1.0f - a) * 0.5f, a * a), r = v_select(far, v_sqrt(u), a);
    vf q = u * 0.0422185665f + 0.0241476011f;
    q = q * u + 0.0454770989f;
    q = q * u + 0.0749524177f;
    q = q * u + 0.166667539f;
    return q * (u * r) + r;
}

static inline vf v_asin(vf x)
{
    const vf a = v_abs(x), y = v_half_asin(a);
    const vf far = (1.57079637f - (y + y)) - 4.37113883e-8f;
    return v_copysign(v_select(a > v_set1(0.5f), far, y), x);
}

static inline vf v_acos(vf x)
{
    const vf a = v_abs(x), y = v_half_asin(a), twice = y + y;
    const vf far = v_select(x < v_set1(0.0f), (3.14159274f - twice) - 8.74227766e-8f, twice);
    const vf near = (1.57079637f - v_copysign(y, x)) - 4.37113883e-8f;
    return v_select(a > v_set1(0.5f), far, near);
}

/* x (1 + erf(x / sqrt 2)) / 2: a quotient of polynomials, a third of the work of v_erf. */
static inline vf v_gelu(vf x)
{
    const vf c = v_min(v_set1(5.6f), v_max(v_set1(-5.6f), x)), u = c * c;
    vf p = u * 2.33867716e-08f + 6.35994866e-06f;
    vf q = u * 1.21658672e-06f + 7.23985722e-05f;
    p = p * u + 0.00016431736f;
    q = q * u + 0.001858957f;
    p = p * u + 0.00465082424f;
    q = q * u + 0.0283784606f;
    p = p * u + 0.0333718471f;
    q = q * u + 0.250316918f;
    p = p * u + 0.398942232f;
    q = q * u + 1.0f;
    /* At the ends of the range it is a little beyond 0 and 1. */
    return x * v_min(v_set1(1.0f), v_max(v_set1(0.0f), c * (p / q) + 0.5f));
}

/* (1 + tanh(t)) / 2 = 1 / (1 + e^-2t). */
static inline vf v_gelu_tanh(vf x)
{
    return x / (1.0f + v_exp_short((x * x * -0.0713548163f - 1.59576912f) * x));
}


/* e^x for x <= 0, and 0 from -87.7 down: 2^n is made of the sum that rounds x / ln 2. */
static inline vf v_exp_below(vf x)
{
    const vf c = v_max(v_set1(-88.0f), x);
    const vf t = c * 1.44269504f + 12583039.0f, n = t - 12583039.0f;
    const vf r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    const vf power = v_from_bits(v_bits(t) << 23);
    vf q = r * 0.00138145988f + 0.00836871658f;
    q = q * r + 0.041668389f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    return (q * (r * r) + r) * power + power;
}


/* max and min that return a NaN when either side is one. */
static inline vf v_maximum(vf a, vf b)
{
    return v_select(a != a, a, v_max(a, b));
}

static inline vf v_minimum(vf a, vf b)
{
    return v_select(a != a, a, v_min(a, b));
}

static inline vf v_sign(vf x)
{
    const vf one = v_copysign(v_set1(1.0f), x);
    return v_select(v_abs(x) > v_set1(0.0f), one, x);
}

static inline vf v_sigmoid(vf x)
{
    return 1.0f / (1.0f + v_exp_short(-x));
}

static inline vf v_silu(vf x)
{
    return x / (1.0f + v_exp_short(-x));
}

static inline vf v_softplus(vf x)
{
    return v_max(v_set1(0.0f), x) + v_log1p(v_exp(-v_abs(x)));
}

/* x tanh(softplus(x)) = x n / (n + 2) with n = e^x (e^x + 2). */
static inline vf v_mish(vf x)
{
    const vf e = v_exp(v_min(v_set1(20.0f), x));
    const vf n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

static inline vf v_elu(vf x, vf alpha)
{
    return v_select(x > v_set1(0.0f), x, alpha * v_expm1(v_min(v_set1(0.0f), x)));
}

static inline vf v_hard_sigmoid(vf x, vf alpha, vf beta)
{
    return v_min(v_set1(1.0f), v_max(v_set1(0.0f), alpha * x + beta));
}


/* e^x = 2^n e^r, |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to a whole number. */
static inline float s_exp(float x)
{
    const float c = s_min(s_set1(89.0f), s_max(s_set1(-104.0f), x));
    const float n = c * 1.44269504f + 12582912.0f - 12582912.0f;
    const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    float q = r * 0.00138145988f + 0.00836871658f;
    q = q * r + 0.041668389f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    return s_scale(q * (r * r) + r + 1.0f, n);
}

/* e^x where 1 + e^x is what matters: 0 from -87.7 down, infinite from 88.4 on. 2^n is made of the
   sum that rounds x / ln 2, which reaches neither subnormal powers nor those beyond 2^127. */
static inline float s_exp_short(float x)
{
    const float c = s_min(s_set1(89.0f), s_max(s_set1(-88.0f), x));
    const float t = c * 1.44269504f + 12583039.0f, n = t - 12583039.0f;
    const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    const float power = s_from_bits((s_bits(t) & 255) << 23);
    float q = r * 0.00138145988f + 0.00836871658f;
    q = q * r + 0.041668389f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    return (q * (r * r) + r + 1.0f) * power;
}

/* e^x - 1 without cancellation: 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)). */
static inline float s_expm1(float x)
{
    const float c = s_min(s_set1(89.0f), s_max(s_set1(-30.0f), x));
    const float n = c * 1.44269504f + 12582912.0f - 12582912.0f;
    const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    float q = r * 0.000198458787f + 0.00139406277f;
    q = q * r + 0.00833338965f;
    q = q * r + 0.0416663624f;
    q = q * r + 0.166666657f;
    q = q * r + 0.5f;
    const float s = s_scale(s_set1(0.5f), n);
    return 2.0f * (s * (q * (r * r) + r) + (s - 0.5f));
}

/* x = 2^e m, 2/3 <= m < 4/3; log x = e ln 2 + log1p(m - 1). */
static inline float s_log(float x)
{
    const float tiny = s_select(x < s_set1(1.17549435e-38f), s_set1(8388608.0f), s_set1(1.0f));
    const int32_t bits = s_bits(s_abs(x * tiny)) - 0x3f2aaaab;
    const float f = s_from_bits((bits & 0x007fffff) + 0x3f2aaaab) - 1.0f;
    const float e = s_to_float(bits >> 23) - s_select(tiny > s_set1(1.0f), s_set1(23.0f), s_set1(0));
    float q = f * -0.12891683f + 0.139844388f;
    q = q * f - 0.121842615f;
    q = q * f + 0.140058681f;
    q = q * f - 0.16680488f;
    q = q * f + 0.200104058f;
    q = q * f - 0.249997973f;
    q = q * f + 0.333332151f;
    /* Never a sum of two products: which one a compiler fuses is not fixed. */
    float y = e * -2.12194440e-4f + ((q * f - 0.5f) * (f * f) + f);
    y = e * 0.693359375f + y;
    y = s_select(x < s_set1(INFINITY), y, x);
    y = s_select(x == s_set1(0.0f), s_set1(-INFINITY), y);
    return s_select(x < s_set1(0.0f), s_set1(NAN), y);
}

/* log(1 + x) for x >= 0, with what 1 + x rounds away put back. */
static inline float s_log1p(float x)
{
    const float u = 1.0f + x;
    const float lost = (x - (u - 1.0f)) / u;
    return s_log(u) + s_select(u < s_set1(INFINITY), lost, s_set1(0.0f));
}

static inline float s_tanh(float x)
{
    const float a = s_abs(x), x2 = x * x;
    float q = x2 * -0.00570498733f + 0.020639088f;
    q = q * x2 - 0.0537397154f;
    q = q * x2 + 0.133314416f;
    q = q * x2 - 0.333332807f;
    const float small = q * (x2 * x) + x;
    const float large = 1.0f - 2.0f / (s_exp_short(a + a) + 1.0f);
    return s_select(a < s_set1(0.625f), small, s_copysign(large, x));
}

/* Near 0 an odd polynomial, else 1 - e^p(|x|); erf rounds to 1 from 3.93 on. */
static inline float s_erf(float x)
{
    const float x2 = x * x;
    float q = x2 * -0.000563144393f + 0.00491755735f;
    q = q * x2 - 0.0267113168f;
    q = q * x2 + 0.112801805f;
    q = q * x2 - 0.37612325f;
    q = q * x2 + 0.128379121f;
    const float small = q * x + x;
    const float a = s_min(s_set1(4.0f), s_abs(x));
    float p = a * 0.000186379213f - 0.00294765853f;
    p = p * a + 0.0218380652f;
    p = p * a - 0.103106759f;
    p = p * a - 0.638144851f;
    p = p * a - 1.12708914f;
    p = p * a - 0.000341522857f;
    return s_select(a < s_set1(1.0f), small, s_copysign(1.0f - s_exp(p), x));
}

/* x = n pi / 2 + r, |r| <= pi / 4: the sine or cosine of r, by turns; `shift` is 1 for a cosine. */
static inline float s_wave(float x, int32_t shift)
{
    float n;
    const float r = s_turned(x, &n), u = r * r;
    float s = u * -0.000195172346f + 0.00833217769f;
    s = s * u - 0.166666549f;
    s = s * (u * r) + r;
    float c = u * 2.44383793e-05f - 0.00138873669f;
    c = c * u + 0.0416666469f;
    c = c * (u * u) + (1.0f - 0.5f * u);
    const int32_t turns = s_bits(n + 12582912.0f) + shift;
    const float y = s_select((turns & 1) != 0, c, s);
    return s_select((turns & 2) != 0, -y, y);
}

/* Beyond a million the C library knows better, and what is no number it leaves so. */
static inline float s_sin(float x)
{
    const float y = s_wave(x, 0);
    return s_is_beyond(x, 1e6f) ? s_select(s_abs(x) <= s_set1(1e6f), y, s_sin_far(x)) : y;
}

static inline float s_cos(float x)
{
    const float y = s_wave(x, 1);
    return s_is_beyond(x, 1e6f) ? s_select(s_abs(x) <= s_set1(1e6f), y, s_cos_far(x)) : y;
}

static inline float s_tan(float x) { return s_sin(x) / s_cos(x); }

/* Around 0, pi / 4 or pi / 2, whichever leaves a tangent of at most tan(pi / 8). */
static inline float s_atan(float x)
{
    const float a = s_abs(x);
    const int32_t far = a > s_set1(2.41421356f), middle = a > s_set1(0.414213562f);
    const float over = s_select(far, s_set1(-1.0f), s_select(middle, a - 1.0f, a));
    const float under = s_select(far, a, s_select(middle, a + 1.0f, s_set1(1.0f)));
    const float t = over / under, u = t * t;
    float q = u * 0.0806030780f - 0.138798490f;
    q = q * u + 0.199779257f;
    q = q * u - 0.333329558f;
    const float from = s_select(far, s_set1(1.57079637f), s_set1(0.785398185f));
    const float y = q * (u * t) + t;
    return s_copysign(s_select(middle, from + y, y), x);
}

/* asin(r), where r is |x|, or sqrt((1 - |x|) / 2) from 1/2 on. */
static inline float s_half_asin(float a)
{
    const int32_t far = a > s_set1(0.5f);
    const float u = s_select(far, (1.0f - a) * 0.5f, a * a), r = s_select(far, s_sqrt(u), a);
    float q = u * 0.0422185665f + 0.0241476011f;
    q = q * u + 0.0454770989f;
    q = q * u + 0.0749524177f;
    q = q * u + 0.166667539f;
    return q * (u * r) + r;
}

static inline float s_asin(float x)
{
    const float a = s_abs(x), y = s_half_asin(a);
    const float far = (1.57079637f - (y + y)) - 4.37113883e-8f;
    return s_copysign(s_select(a > s_set1(0.5f), far, y), x);
}

static inline float s_acos(float x)
{
    const float a = s_abs(x), y = s_half_asin(a), twice = y + y;
    const float far = s_select(x < s_set1(0.0f), (3.14159274f - twice) - 8.74227766e-8f, twice);
    const float near = (1.57079637f - s_copysign(y, x)) - 4.37113883e-8f;
    return s_select(a > s_set1(0.5f), far, near);
}

/* x (1 + erf(x / sqrt 2)) / 2: a quotient of polynomials, a third of the work of s_erf. */
static inline float s_gelu(float x)
{
    const float c = s_min(s_set1(5.6f), s_max(s_set1(-5.6f), x)), u = c * c;
    float p = u * 2.33867716e-08f + 6.35994866e-06f;
    float q = u * 1.21658672e-06f + 7.23985722e-05f;
    p = p * u + 0.00016431736f;
    q = q * u + 0.001858957f;
    p = p * u + 0.00465082424f;
    q = q * u + 0.0283784606f;
    p = p * u + 0.0333718471f;
    q = q * u + 0.250316918f;
    p = p * u + 0.398942232f;
    q = q * u + 1.0f;
    /* At the ends of the range it is a little beyond 0 and 1. */
    return x * s_min(s_set1(1.0f), s_max(s_set1(0.0f), c * (p / q) + 0.5f));
}

/* (1 + tanh(t)) / 2 = 1 / (1 + e^-2t). */
static inline float s_gelu_tanh(float x)
{
    return x / (1.0f + s_exp_short((x * x * -0.0713548163f - 1.59576912f) * x));
}

/* max and min that return a NaN when either side is one. */
static inline float s_maximum(float a, float b)
{
    return s_select(a != a, a, s_max(a, b));
}

static inline float s_minimum(float a, float b)
{
    return s_select(a != a, a, s_min(a, b));
}

static inline float s_sign(float x)
{
    const float one = s_copysign(s_set1(1.0f), x);
    return s_select(s_abs(x) > s_set1(0.0f), one, x);
}

static inline float s_sigmoid(float x)
{
    return 1.0f / (1.0f + s_exp_short(-x));
}

static inline float s_silu(float x)
{
    return x / (1.0f + s_exp_short(-x));
}

static inline float s_softplus(float x)
{
    return s_max(s_set1(0.0f), x) + s_log1p(s_exp(-s_abs(x)));
}

/* x tanh(softplus(x)) = x n / (n + 2) with n = e^x (e^x + 2). */
static inline float s_mish(float x)
{
    const float e = s_exp(s_min(s_set1(20.0f), x));
    const float n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

static inline float s_elu(float x, float alpha)
{
    return s_select(x > s_set1(0.0f), x, alpha * s_expm1(s_min(s_set1(0.0f), x)));
}

static inline float s_hard_sigmoid(float x, float alpha, float beta)
{
    return s_min(s_set1(1.0f), s_max(s_set1(0.0f), alpha * x + beta));
}

#define d_sin sin
#define d_cos cos
#define d_tan tan
#define d_asin asin
#define d_acos acos
#define d_atan atan
#define d_exp exp
#define d_expm1 expm1
#define d_log log
#define d_log1p log1p
#define d_tanh tanh
#define d_erf erf
#define d_sqrt sqrt
#define d_floor floor
#define d_ceil ceil
#define d_copysign copysign
#define d_pow pow
#define d_exp_short exp

#define d_set1(x) ((double)(x))
static inline double d_abs(double x) { return fabs(x); }
static inline double d_max(double a, double b) { return a > b ? a : b; }
static inline double d_min(double a, double b) { return a < b ? a : b; }
static inline double d_select(int32_t m, double a, double b) { return m ? a : b; }
static inline double d_round(double x) { return nearbyint(x); }


/* max and min that return a NaN when either side is one. */
static inline double d_maximum(double a, double b)
{
    return d_select(a != a, a, d_max(a, b));
}

static inline double d_minimum(double a, double b)
{
    return d_select(a != a, a, d_min(a, b));
}

static inline double d_sign(double x)
{
    const double one = d_copysign(d_set1(1.0), x);
    return d_select(d_abs(x) > d_set1(0.0), one, x);
}

static inline double d_sigmoid(double x)
{
    return 1.0 / (1.0 + d_exp_short(-x));
}

static inline double d_silu(double x)
{
    return x / (1.0 + d_exp_short(-x));
}

static inline double d_softplus(double x)
{
    return d_max(d_set1(0.0), x) + d_log1p(d_exp(-d_abs(x)));
}

/* x tanh(softplus(x)) = x n / (n + 2) with n = e^x (e^x + 2). */
static inline double d_mish(double x)
{
    const double e = d_exp(d_min(d_set1(20.0), x));
    const double n = e * (e + 2.0);
    return x * (n / (n + 2.0));
}

static inline double d_elu(double x, double alpha)
{
    return d_select(x > d_set1(0.0), x, alpha * d_expm1(d_min(d_set1(0.0), x)));
}

static inline double d_hard_sigmoid(double x, double alpha, double beta)
{
    return d_min(d_set1(1.0), d_max(d_set1(0.0), alpha * x + beta));
}


static inline double d_gelu(double x)
{
    return 0.5 * x * (1.0 + erf(x * 0.70710678118654752));
}

static inline double d_gelu_tanh(double x)
{
    return 0.5 * x * (1.0 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}

/* to[c][r] = from[r][c] for up to V rows and columns; the strides are distances of rows.
   `lanes` floats of every row are written, zeros where there is no row to read. */
static inline __attribute__((always_inline)) void tl_transpose_part(
    const float *from, int64_t from_stride, int64_t rows, int64_t columns,
    float *to, int64_t to_stride, int64_t lanes)
{
    vf r[V];
    for (int i = 0; i < V; i++)
        r[i] = i >= rows ? v_set1(0.0f)
             : columns < V ? v_loadn(from + i * from_stride, columns)
             : v_load(from + i * from_stride);
    for (int i = 0; i < V; i++)
        if (!(i & 1)) {
            const vf a = r[i], b = r[i + 1];
            r[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
            r[i + 1] = __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
        }
    for (int i = 0; i < V; i++)
        if (!(i & 2)) {
            const vf a = r[i], b = r[i + 2];
            r[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            r[i + 2] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < V; i++)
        if (!(i & 4)) {
            const vf a = r[i], b = r[i + 4];
            r[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
            r[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
        }
    for (int i = 0; i < V; i++)
        if (i < columns) {
            if (lanes < V)
                v_storen(to + i * to_stride, r[i], lanes);
            else
                v_store(to + i * to_stride, r[i]);
        }
}
static inline void tl_transpose(
    const float *from, int64_t from_stride, float *to, int64_t to_stride)
{
    tl_transpose_part(from, from_stride, V, V, to, to_stride, V);
}

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
static inline double tl_mod_float(double a, double b)
{
    const double r = fmod(a, b);
    return r == 0 ? copysign(0.0, b) : (r < 0) != (b < 0) ? r + b : r;
}
static inline int64_t tl_to_int(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
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


typedef int8_t vc_any __attribute__((vector_size(8), aligned(1), may_alias));

#ifdef TL_GCC_X86
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
#else
static inline vi v_load_bytes(const uint8_t *p)
{
    return __builtin_convertvector(*(const vb_any *)p, vi);
}
static inline vf v_load_i8(const int8_t *p)
{
    return v_to_float(__builtin_convertvector(*(const vc_any *)p, vi));
}
#endif
static inline vf v_load_u8(const uint8_t *p) { return v_to_float(v_load_bytes(p)); }
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

#ifdef TL_GCC_X86
typedef short tl_v16hi __attribute__((vector_size(32)));
typedef char tl_v32qi __attribute__((vector_size(32)));
typedef long long tl_v4di __attribute__((vector_size(32)));
static inline vi v_nearest(vf x)
{
    return __builtin_ia32_cvtps2dq256(v_min(v_set1(1e9f), x));
}
static inline tl_v16hi v_shorts(vf a, vf b, int32_t zero)
{
    const tl_v16hi pairs = (tl_v16hi)__builtin_ia32_packssdw256(v_nearest(a), v_nearest(b));
    const tl_v16hi added = (tl_v16hi)v_iset1((zero & 0xffff) * 0x10001);
    return zero ? (tl_v16hi)__builtin_ia32_paddsw256(pairs, added) : pairs;
}

static inline void v_store_u8(uint8_t *p, vf x)
{
    const vi i = v_to_int(x);
    const tl_v16hi h = (tl_v16hi)__builtin_ia32_packssdw256(i, i);
    const vi b = (vi)__builtin_ia32_packuswb256(h, h);
    const tl_v4di q = (tl_v4di)__builtin_ia32_permvarsi256(b, (vi){0, 4, 0, 4, 0, 4, 0, 4});
    memcpy(p, &q, 8);
}
static inline void v_quantize_u8(uint8_t *p, vf x, int32_t zero)
{
    const tl_v16hi h = v_shorts(x, x, zero);
    const vi b = (vi)__builtin_ia32_packuswb256(h, h);
    const tl_v4di q = (tl_v4di)__builtin_ia32_permvarsi256(b, (vi){0, 4, 0, 4, 0, 4, 0, 4});
    memcpy(p, &q, 8);
}
static inline void v_quantize4_u8(uint8_t *p, vf a, vf b, vf c, vf d, int32_t zero)
{
    const vi bytes = (vi)__builtin_ia32_packuswb256(v_shorts(a, b, zero), v_shorts(c, d, zero));
    const vi q = __builtin_ia32_permvarsi256(bytes, (vi){0, 4, 1, 5, 2, 6, 3, 7});
    memcpy(p, &q, 32);
}

static inline void v_store_i8(int8_t *p, vf x)
{
    const vi i = v_to_int(x);
    const tl_v16hi h = (tl_v16hi)__builtin_ia32_packssdw256(i, i);
    const vi b = (vi)__builtin_ia32_packsswb256(h, h);
    const tl_v4di q = (tl_v4di)__builtin_ia32_permvarsi256(b, (vi){0, 4, 0, 4, 0, 4, 0, 4});
    memcpy(p, &q, 8);
}
static inline void v_quantize_i8(int8_t *p, vf x, int32_t zero)
{
    const tl_v16hi h = v_shorts(x, x, zero);
    const vi b = (vi)__builtin_ia32_packsswb256(h, h);
    const tl_v4di q = (tl_v4di)__builtin_ia32_permvarsi256(b, (vi){0, 4, 0, 4, 0, 4, 0, 4});
    memcpy(p, &q, 8);
}
static inline void v_quantize4_i8(int8_t *p, vf a, vf b, vf c, vf d, int32_t zero)
{
    const vi bytes = (vi)__builtin_ia32_packsswb256(v_shorts(a, b, zero), v_shorts(c, d, zero));
    const vi q = __builtin_ia32_permvarsi256(bytes, (vi){0, 4, 1, 5, 2, 6, 3, 7});
    memcpy(p, &q, 32);
}
#else
/* Whole floats that lie in the range of the type. */
static inline void v_store_u8(uint8_t *p, vf x)
{
    *(vb_any *)p = __builtin_convertvector(v_to_int(x), vb_any);
}
static inline void v_store_i8(int8_t *p, vf x)
{
    *(vc_any *)p = __builtin_convertvector(v_to_int(x), vc_any);
}

/* Real numbers to the nearest codes, for a scale of 1; a NaN becomes the lowest code. */
static inline void v_quantize_u8(uint8_t *p, vf x, int32_t zero)
{
    v_store_u8(p, v_min(v_max(v_round(x) + (float)zero, v_set1(0.0f)), v_set1(255.0f)));
}

/* Real numbers to the nearest codes, for a scale of 1; a NaN becomes the lowest code. */
static inline void v_quantize_i8(int8_t *p, vf x, int32_t zero)
{
    v_store_i8(p, v_min(v_max(v_round(x) + (float)zero, v_set1(-128.0f)), v_set1(127.0f)));
}

static inline void v_quantize4_u8(uint8_t *p, vf a, vf b, vf c, vf d, int32_t zero)
{
    v_quantize_u8(p, a, zero), v_quantize_u8(p + V, b, zero);
    v_quantize_u8(p + 2 * V, c, zero), v_quantize_u8(p + 3 * V, d, zero);
}

static inline void v_quantize4_i8(int8_t *p, vf a, vf b, vf c, vf d, int32_t zero)
{
    v_quantize_i8(p, a, zero), v_quantize_i8(p + V, b, zero);
    v_quantize_i8(p + 2 * V, c, zero), v_quantize_i8(p + 3 * V, d, zero);
}
#endif

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

void f_tanh(const float *x, float *y, int64_t n)
{
 for (int64_t i = 0; i < n; i += V)
 v_store(y + i, v_tanh(v_load(x + i)));
}

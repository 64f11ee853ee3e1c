"""Elementary functions of doubles without branches or calls: their loops become vectors.

Written for `double` alone; what else there is in double combines these or is the C library's.
Polynomials are near-minimax fits made for tuili; test_double_math.py states the errors.
"""

from __future__ import annotations

DOUBLE_MATH = """
#define D_MAGIC 6755399441055744.0 /* 1.5 * 2^52: adding it rounds to a whole number */
#define D_LN2_HIGH 0.693147180369123816490 /* few enough bits for products with whole numbers */
#define D_LN2_LOW 1.90821492927058770002e-10

static inline uint64_t d_bits(double x) { uint64_t i; memcpy(&i, &x, 8); return i; }
static inline double d_from_bits(uint64_t i) { double x; memcpy(&x, &i, 8); return x; }

/* 2^n for whole n from -1022 to 1023. */
static inline double d_power(double n)
{
    return d_from_bits((d_bits(n + D_MAGIC) << 52) + 0x3ff0000000000000);
}

/* e^r - 1 for |r| <= ln 2 / 2. */
static inline double d_expm1_near(double r)
{
    double q = r * 2.510037761960637104e-8 + 2.762007820380639334e-7;
    q = q * r + 2.755726847655369618e-6;
    q = q * r + 2.480152131748408401e-5;
    q = q * r + 0.0001984126986304296231;
    q = q * r + 0.001388888891719986211;
    q = q * r + 0.008333333333330063966;
    q = q * r + 0.04166666666662415561;
    q = q * r + 0.1666666666666666745;
    q = q * r + 0.5000000000000001021;
    return q * (r * r) + r;
}

/* e^x = 2^n e^r; two factors, since 2^n may lie outside the doubles. */
static inline double d_exp(double x)
{
    const double c = d_min(710.0, d_max(-746.0, x));
    const double n = c * 1.4426950408889634 + D_MAGIC - D_MAGIC;
    const double r = (c - n * D_LN2_HIGH) - n * D_LN2_LOW;
    const double half = n * 0.5 + D_MAGIC - D_MAGIC;
    return (1.0 + d_expm1_near(r)) * d_power(half) * d_power(n - half);
}

/* 2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)). */
static inline double d_expm1(double x)
{
    const double c = d_min(710.0, d_max(-40.0, x));
    const double n = c * 1.4426950408889634 + D_MAGIC - D_MAGIC;
    const double r = (c - n * D_LN2_HIGH) - n * D_LN2_LOW;
    const double s = d_power(n - 1.0);
    return 2.0 * (s * d_expm1_near(r) + (s - 0.5));
}

/* e / (e + 2) with e = e^2|x| - 1; rounded to 1 long before 20. */
static inline double d_tanh(double x)
{
    const double a = d_min(20.0, d_abs(x));
    const double n = a * 2.8853900817779268 + D_MAGIC - D_MAGIC;
    const double h = (a - n * (0.5 * D_LN2_HIGH)) - n * (0.5 * D_LN2_LOW);
    const double power = d_power(n);
    const double e = d_expm1_near(h + h) * power + (power - 1.0);
    return copysign(e / (e + 2.0), x);
}

/* x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); log(1 + f) = 2 artanh(f / (2 + f)). */
static inline double d_log(double x)
{
    const double tiny = x < 2.2250738585072014e-308 ? 18014398509481984.0 : 1.0;
    const uint64_t high = d_bits(x * tiny) + (0x3ff0000000000000 - 0x3fe6a09e00000000);
    const double f = d_from_bits((high & 0x000fffffffffffff) + 0x3fe6a09e00000000) - 1.0;
    const double biased = d_from_bits(high >> 52 | 0x4330000000000000) - 4503599627370496.0;
    const double e = biased - (tiny > 1.0 ? 1077.0 : 1023.0);
    const double s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    double q = z * 0.1461703754879165015 + 0.1533167403016786185;
    q = q * z + 0.1818289055669560353;
    q = q * z + 0.222222111151441615;
    q = q * z + 0.2857142862609589154;
    q = q * z + 0.3999999999989923898;
    q = q * z + 0.6666666666666669695;
    double y = e * D_LN2_HIGH - ((half - (s * (half + q * z) + e * D_LN2_LOW)) - f);
    y = x < INFINITY ? y : x;
    y = x == 0.0 ? -INFINITY : y;
    return x < 0.0 ? NAN : y;
}

/* For x >= 0, with what 1 + x rounds away put back. */
static inline double d_log1p(double x)
{
    const double u = 1.0 + x, lost = (x - (u - 1.0)) / u;
    return d_log(u) + (u < INFINITY ? lost : 0.0);
}
"""

"""Elementary functions for vectors, and the scalar twins that are made from the same text.

The functions are written once, for `vf` (floats), `vi` (int32) and names that start with `v_`. The
scalar twin has `float`, `int32_t` and `s_` instead, so it gives the same number as a vector lane.
Functions that only combine others exist for `double` too (`d_`), on top of `double_math` and the
C library.
Polynomials are minimax fits made for tuili; tests/codegen/test_prelude.py states the errors.
"""

from __future__ import annotations

import re

from tuili.codegen.double_math import DOUBLE_MATH

# Every function here is called with whole vectors; a NaN goes in and comes out.
_KERNELS = """
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

/* Near 0 an odd polynomial, else 1 - 2 / (e^2|x| + 1), rounded to 1 long before 20. With h half of
   what 2^n leaves of 2|x|, e^2|x| + 1 is one sum: (q h^2 + h) 2^(n+1) + (2^n + 1). */
static inline vf v_tanh(vf x)
{
    const vf a = v_abs(x), x2 = x * x;
    vf p = x2 * -0.00570498733f + 0.020639088f;
    p = p * x2 - 0.0537397154f;
    p = p * x2 + 0.133314416f;
    p = p * x2 - 0.333332807f;
    const vf small = p * (x2 * x) + x;
    const vf c = v_min(v_set1(20.0f), a);
    const vf t = c * 2.88539008f + 12583040.0f, n = t - 12583040.0f;
    const vf h = c - n * 0.34657359f;
    const vf power = v_from_bits((v_bits(t) & 255) << 23);
    vf q = h * 0.0442066362f + 0.133899465f;
    q = q * h + 0.333347112f;
    q = q * h + 0.666660845f;
    q = q * h + 0.99999988f;
    const vf e = (q * (h * h) + h) * power + (power * 0.5f + 1.0f);
    return v_select(a < v_set1(0.625f), small, v_copysign(1.0f - 2.0f / e, x));
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
    return v_select(a < v_set1(1.0f), small, v_copysign(1.0f - v_exp_short(p), x));
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
"""

# Literals have the digits of a double: the `d_` form only drops the suffix.
_COMBINATIONS = """
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
"""

# In double, where nothing is gained by a closer look.
_DOUBLE_COMBINATIONS = """
static inline double d_gelu(double x)
{
    return 0.5 * x * (1.0 + erf(x * 0.70710678118654752));
}

static inline double d_gelu_tanh(double x)
{
    return 0.5 * x * (1.0 + d_tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}
"""

# No vector form of our own: the C library, lane by lane.
LIBRARY = (
    "sinh", "cosh", "asinh", "acosh", "atanh",
)  # fmt: skip
# Their vector forms leave numbers that are too large to it.
FAR = ("sin", "cos")
ANGLES = ("tan", "asin", "acos", "atan")
_DOUBLES = (
    "sin", "cos", "tan", "asin", "acos", "atan",
    "erf", "sqrt", "floor", "ceil", "copysign", "pow",
)  # fmt: skip


# For vectors only: what a softmax takes of numbers below the largest, in two thirds of the time.
_BELOW = """
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
"""


def _twin(text: str, floats: str, ints: str, prefix: str) -> str:
    text = re.sub(r"\bvf\b", floats, text)
    text = re.sub(r"\bvi\b", ints, text)
    return re.sub(r"\bv_", prefix, text)


def _lane_by_lane(name: str, function: str) -> list[str]:
    return [
        f"static inline float s_{name}(float x) {{ return {function}f(x); }}",
        f"static inline vf v_{name}(vf x) {{ TL_LANES x[l] = {function}f(x[l]); return x; }}",
    ]


def _library() -> str:
    lines: list[str] = []
    for name in FAR:
        lines += _lane_by_lane(f"{name}_far", name)
    for name in LIBRARY:
        lines.append(f"static inline double d_{name}(double x) {{ return {name}(x); }}")
        lines += _lane_by_lane(name, name)
    return "\n".join(
        [
            "#define TL_LANES for (int l = 0; l < V; l++)",
            *lines,
            "static inline float s_pow(float x, float y) { return powf(x, y); }",
            "static inline vf v_pow(vf x, vf y)",
            "{",
            "    TL_LANES x[l] = powf(x[l], y[l]);",
            "    return x;",
            "}",
        ]
    )


_DOUBLE = """
#define d_set1(x) ((double)(x))
static inline double d_abs(double x) { return fabs(x); }
static inline double d_max(double a, double b) { return a > b ? a : b; }
static inline double d_min(double a, double b) { return a < b ? a : b; }
static inline double d_select(int32_t m, double a, double b) { return m ? a : b; }
static inline double d_round(double x) { return nearbyint(x); }
"""


def vector_math() -> str:
    """The C text of all functions, in vector, float and double form."""
    scalar = _twin(_KERNELS + _COMBINATIONS, "float", "int32_t", "s_")
    double = _twin(_COMBINATIONS, "double", "int32_t", "d_")
    double = re.sub(r"(\d\.\d+)f\b", r"\1", double)
    names = "\n".join(f"#define d_{name} {name}" for name in _DOUBLES)
    names += "\n#define d_exp_short d_exp"
    parts = [_library(), _KERNELS, _BELOW, _COMBINATIONS, scalar, names, _DOUBLE, DOUBLE_MATH]
    parts.append(double)
    parts.append(_DOUBLE_COMBINATIONS)
    return "\n".join(parts)

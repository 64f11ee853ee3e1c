"""Stockham's passes in C: each takes one factor, and the order comes out right by itself."""

from __future__ import annotations

PASSES = """
typedef struct tl_planes {
    float *re, *im;
} tl_planes;

/* `s` numbers lie side by side: w lines times what earlier passes took. `m` is what later passes
   take; `t` holds the turns of a whole circle, `m * step` of which are one part of the radix. */
static void tl_pass_2(const float *restrict xr, const float *restrict xi, float *restrict yr,
                      float *restrict yi, int64_t m, int64_t s, int64_t step, int64_t count,
                      const float *restrict t)
{
    for (int64_t p = 0; p < m; p++) {
        const float wr = t[p * step], wi = t[count + p * step];
        const int64_t a = s * p, b = s * (p + m), to = s * 2 * p;
        for (int64_t q = 0; q < s; q++) {
            const float dr = xr[a + q] - xr[b + q], di = xi[a + q] - xi[b + q];
            yr[to + q] = xr[a + q] + xr[b + q];
            yi[to + q] = xi[a + q] + xi[b + q];
            yr[to + s + q] = dr * wr - di * wi;
            yi[to + s + q] = dr * wi + di * wr;
        }
    }
}

static void tl_pass_4(const float *restrict xr, const float *restrict xi, float *restrict yr,
                      float *restrict yi, int64_t m, int64_t s, int64_t step, int64_t count,
                      const float *restrict t)
{
    for (int64_t p = 0; p < m; p++) {
        const float ur = t[p * step], ui = t[count + p * step];
        const float vr = t[2 * p * step], vi = t[count + 2 * p * step];
        const float wr = t[3 * p * step], wi = t[count + 3 * p * step];
        const int64_t a = s * p, b = s * (p + m), c = s * (p + 2 * m), d = s * (p + 3 * m);
        const int64_t to = s * 4 * p;
        for (int64_t q = 0; q < s; q++) {
            const float er = xr[a + q] + xr[c + q], ei = xi[a + q] + xi[c + q];
            const float fr = xr[a + q] - xr[c + q], fi = xi[a + q] - xi[c + q];
            const float gr = xr[b + q] + xr[d + q], gi = xi[b + q] + xi[d + q];
            const float hr = xi[d + q] - xi[b + q], hi = xr[b + q] - xr[d + q];
            yr[to + q] = er + gr;
            yi[to + q] = ei + gi;
            yr[to + s + q] = (fr - hr) * ur - (fi - hi) * ui;
            yi[to + s + q] = (fr - hr) * ui + (fi - hi) * ur;
            yr[to + 2 * s + q] = (er - gr) * vr - (ei - gi) * vi;
            yi[to + 2 * s + q] = (er - gr) * vi + (ei - gi) * vr;
            yr[to + 3 * s + q] = (fr + hr) * wr - (fi + hi) * wi;
            yi[to + 3 * s + q] = (fr + hr) * wi + (fi + hi) * wr;
        }
    }
}

static void tl_pass_any(const float *restrict xr, const float *restrict xi, float *restrict yr,
                        float *restrict yi, int64_t r, int64_t m, int64_t s, int64_t step,
                        int64_t count, const float *restrict t)
{
    for (int64_t p = 0; p < m; p++)
        for (int64_t k = 0; k < r; k++) {
            const int64_t to = s * (r * p + k);
            for (int64_t j = 0; j < r; j++) {
                const int64_t turn = k * (p * step + j * (count / r)) % count;
                const float wr = t[turn], wi = t[count + turn];
                const int64_t a = s * (p + m * j);
                for (int64_t q = 0; q < s; q++) {
                    const float er = xr[a + q] * wr - xi[a + q] * wi;
                    const float ei = xr[a + q] * wi + xi[a + q] * wr;
                    yr[to + q] = j ? yr[to + q] + er : er;
                    yi[to + q] = j ? yi[to + q] + ei : ei;
                }
            }
        }
}

/* Transform w lines of `count` points in `a`; `b` is memory for the passes. */
static void tl_passes(tl_planes *a, tl_planes *b, int64_t count, int64_t w, const int *radices,
                      const float *restrict t)
{
    int64_t s = 1;
    for (; *radices > 1; radices++) {
        const int64_t r = *radices, m = count / s / r;
        if (r == 4)
            tl_pass_4(a->re, a->im, b->re, b->im, m, s * w, s, count, t);
        else if (r == 2)
            tl_pass_2(a->re, a->im, b->re, b->im, m, s * w, s, count, t);
        else
            tl_pass_any(a->re, a->im, b->re, b->im, r, m, s * w, s, count, t);
        const tl_planes done = *b;
        *b = *a;
        *a = done;
        s *= r;
    }
}

/* Multiply every line by one factor for each point. */
static void tl_turn(tl_planes a, int64_t points, int64_t w, const float *restrict f, int64_t count)
{
    for (int64_t i = 0; i < points; i++)
        for (int64_t c = i * w; c < (i + 1) * w; c++) {
            const float re = a.re[c], im = a.im[c];
            a.re[c] = re * f[i] - im * f[count + i];
            a.im[c] = re * f[count + i] + im * f[i];
        }
}
"""

STRAIGHT = "tl_passes(&a, &b, M, w, radices, turns);"

# Bluestein: the products of a convolution with a chirp, over a circle that is long enough.
AROUND = """tl_turn(a, N, w, chirp, N);
    tl_passes(&a, &b, M, w, radices, turns);
    tl_turn(a, M, w, answer, M);
    for (int64_t i = 0; i < M * w; i++)
        a.im[i] = -a.im[i];
    tl_passes(&a, &b, M, w, radices, turns);
    for (int64_t i = 0; i < M * w; i++)
        a.im[i] = -a.im[i];
    tl_turn(a, N, w, chirp, N);"""

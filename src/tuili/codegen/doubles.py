"""Kernels in double: what is printed for floats, read as text about doubles in half as many lanes.

A template that speaks of `vf`, `V` and the loads, stores and sums of the prelude is printed for a
target of half the lanes, then renamed: `vq`, `VQ`, `q_load`. What the prelude has no twin of stays
with floats.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tuili.codegen.targets import Target

DOUBLES = """
#ifndef VQ
#define VQ (V / 2)
typedef double vq __attribute__((vector_size(4 * V)));
typedef double vq_any __attribute__((vector_size(4 * V), aligned(8), may_alias));
static inline vq q_load(const double *p) { return *(const vq_any *)p; }
static inline void q_store(double *p, vq x) { *(vq_any *)p = x; }
static inline vq q_set1(double x) { return x - (vq){0}; }
typedef int64_t vqi __attribute__((vector_size(4 * V)));
/* The first n < VQ lanes; the rest is zero, and memory beyond is not touched. */
static inline vq q_loadn(const double *p, int64_t n)
{
    vq x = {0};
    memcpy(&x, p, (size_t)n * 8);
    return x;
}
static inline void q_storen(double *p, vq x, int64_t n) { memcpy(p, &x, (size_t)n * 8); }
static inline vqi q_head(int64_t n)
{
    vqi m;
    for (int l = 0; l < VQ; l++)
        m[l] = -(l < n);
    return m;
}
static inline vq q_select(vqi m, vq a, vq b) { return (vq)((m & (vqi)a) | (~m & (vqi)b)); }
static inline vq q_abs(vq x) { return (vq)((vqi)x & INT64_MAX); }
static inline vq q_maximum(vq a, vq b) { return q_select((a > b) | (a != a), a, b); }
static inline vq q_minimum(vq a, vq b) { return q_select((a < b) | (a != a), a, b); }
static inline vq q_sqrt(vq x)
{
    for (int l = 0; l < VQ; l++)
        x[l] = __builtin_sqrt(x[l]);
    return x;
}
static inline vq q_log(vq x)
{
    for (int l = 0; l < VQ; l++)
        x[l] = d_log(x[l]);
    return x;
}
static inline double q_sum(vq x)
{
    double y = x[0];
    for (int l = 1; l < VQ; l++)
        y += x[l];
    return y;
}
#endif
"""
_NAMES = {"float": "double", "vf": "vq", "V": "VQ", "0.0f": "0.0", "v_": "q_", "s_": "d_"}
_VECTORS = "load|loadn|store|storen|set1|head|select|abs|maximum|minimum|sqrt|log|sum"
_SCALARS = "abs|maximum|minimum|sqrt|log"
_WORDS = re.compile(rf"0\.0f|\b(?:float|vf|V)\b|\bv_(?=(?:{_VECTORS})\b)|\bs_(?=(?:{_SCALARS})\b)")


def half_lanes(target: Target) -> Target:
    """The target as tiles of doubles see it."""
    return replace(target, lanes=target.lanes // 2)


def in_doubles(text: str) -> str:
    """The text of a kernel for doubles; it needs `DOUBLES` as support."""
    return _WORDS.sub(lambda found: _NAMES[found.group()], text)

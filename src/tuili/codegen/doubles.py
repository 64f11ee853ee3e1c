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
#endif
"""
_NAMES = {"float": "double", "vf": "vq", "V": "VQ", "0.0f": "0.0"}
_WORDS = re.compile(r"0\.0f|\b(?:float|vf|V)\b|\bv_(?=(?:load|store|set1)\b)")


def half_lanes(target: Target) -> Target:
    """The target as tiles of doubles see it."""
    return replace(target, lanes=target.lanes // 2)


def in_doubles(text: str) -> str:
    """The text of a kernel for doubles; it needs `DOUBLES` as support."""
    return _WORDS.sub(lambda found: _NAMES.get(found.group(), "q_"), text)

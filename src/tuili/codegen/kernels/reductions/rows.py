"""Rows: reductions of contiguous floats that softmax, norms and reductions share, as C."""

from __future__ import annotations

_LOOP = """
static inline float tl_row_{name}(const float *p, int64_t n{extra})
{{
    vf a = v_set1({start}), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * V <= n; i += 4 * V) {{
        const vf x0 = v_load(p + i), x1 = v_load(p + i + V);
        const vf x2 = v_load(p + i + 2 * V), x3 = v_load(p + i + 3 * V);
        a = {a0};
        b = {b1};
        c = {c2};
        d = {d3};
    }}
    for (; i + V <= n; i += V) {{
        const vf x0 = v_load(p + i);
        a = {a0};
    }}
    if (i < n) {{
        const vf x0 = v_select(v_head(n - i), v_loadn(p + i, n - i), v_set1({idle}));
        b = {b0};
    }}
    const vf ab = {ab}, cd = {cd};
    return {last};
}}
"""


def _row(name: str, step: str, join: str, last: str, start: str, idle: str, extra: str = "") -> str:
    pairs = {f"{acc}{x}": step.format(acc, f"x{x}") for acc in "abcd" for x in range(4)}
    return _LOOP.format(
        name=name, extra=extra, start=start, idle=idle, last=last,
        ab=join.format("a", "b"), cd=join.format("c", "d"), **pairs,
    )  # fmt: skip


_SUM = ("{0} + {1}", "v_sum(ab + cd)", "0.0f")

# What a step adds, how two halves join; `idle` is the element that changes nothing.
ROWS: dict[str, str] = {
    "sum": _row("sum", "{0} + {1}", *_SUM, "0.0f"),
    "abs": _row("abs", "{0} + v_abs({1})", *_SUM, "0.0f"),
    "squares": _row("squares", "{1} * {1} + {0}", *_SUM, "0.0f"),
    # The sum of squared distances from `mean`.
    "variance": _row(
        "variance", "({1} - v_set1(mean)) * ({1} - v_set1(mean)) + {0}", *_SUM, "mean",
        extra=", float mean",
    ),
    # The sum of exponentials below `top`.
    "exponentials": _row(
        "exponentials", "{0} + v_exp_below({1} - v_set1(top))", *_SUM, "-INFINITY",
        extra=", float top",
    ),
    "product": _row(
        "product", "{0} * {1}", "{0} * {1}", "tl_lanes_product(ab * cd)", "1.0f", "1.0f"
    ),
    "max": _row(
        "max", "v_maximum({1}, {0})", "v_maximum({0}, {1})", "tl_lanes_max(v_maximum(ab, cd))",
        "-INFINITY", "-INFINITY",
    ),
    "min": _row(
        "min", "v_minimum({1}, {0})", "v_minimum({0}, {1})", "tl_lanes_min(v_minimum(ab, cd))",
        "INFINITY", "INFINITY",
    ),
    # Not for results: a NaN may be passed over.
    "top": _row("top", "v_max({1}, {0})", "v_max({0}, {1})", "v_hmax(v_max(ab, cd))",
        "-INFINITY", "-INFINITY",
    ),
}  # fmt: skip

_LANES = """
static inline float tl_lanes_{name}(vf x)
{{
    float y = x[0];
    for (int l = 1; l < V; l++)
        y = {step};
    return y;
}}
"""

_BY_LANES = {"product": "y * x[l]", "max": "s_maximum(y, x[l])", "min": "s_minimum(y, x[l])"}


def row_support(*names: str) -> str:
    """The C of these row functions: `tl_row_sum(p, n)` and so on."""
    parts: list[str] = []
    for name in names:
        if name in _BY_LANES:
            parts.append(_LANES.format(name=name, step=_BY_LANES[name]))
        parts.append(ROWS[name])
    return "\n".join(parts)

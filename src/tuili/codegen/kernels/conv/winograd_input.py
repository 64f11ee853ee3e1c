"""C that reads tiles of input for Winograd convolution and transforms them: V = B d B'."""

from __future__ import annotations

from tuili.codegen.kernels.conv.winograd_plan import WinogradPlan
from tuili.codegen.text import indent


def input_function(plan: WinogradPlan) -> str:
    """C functions that turn one tile of input into its factors of the products."""
    n = plan.winograd.size
    apart, store = "pixels" if plan.is_line else "rows", plan.numbers.store
    head = [
        f"static inline void row_b(const vf d[{n}], vf t[{n}])",
        "{",
        *indent(plan.winograd.input_text.split("\n")),
        "}",
        f"/* B d B': a tile of input, {apart} `row` floats apart, to products `step` apart. */",
        "static inline void transform_input(",
        f"    const float *d, int64_t row, {plan.numbers.dtype.c} *v, int64_t step)",
        "{",
    ]
    if plan.is_line:
        body = [
            f"vf in[{n}], out[{n}];",
            f"for (int j = 0; j < {n}; j++)",
            "    in[j] = v_load(d + j * row);",
            "row_b(in, out);",
            f"for (int j = 0; j < {n}; j++)",
            f"    {store}(v + j * step, out[j]);",
        ]
    else:
        body = [
            f"vf half[{n}][{n}];",
            f"for (int j = 0; j < {n}; j++) {{",
            f"    vf in[{n}], out[{n}];",
            f"    for (int i = 0; i < {n}; i++)",
            "        in[i] = v_load(d + i * row + j * V);",
            "    row_b(in, out);",
            f"    for (int i = 0; i < {n}; i++)",
            "        half[i][j] = out[i];",
            "}",
            f"for (int i = 0; i < {n}; i++) {{",
            f"    vf out[{n}];",
            "    row_b(half[i], out);",
            f"    for (int j = 0; j < {n}; j++)",
            f"        {store}(v + (i * {n} + j) * step, out[j]);",
            "}",
        ]
    return "\n".join([*head, *indent(body), "}"])


def v_blocks_text(plan: WinogradPlan) -> str:
    """C: blocks of channels in V."""
    return "CB" if plan.v_blocks == plan.channel_blocks else str(plan.v_blocks)


def transform_tiles(plan: WinogradPlan, first: str, last: str) -> list[str]:
    """C that fills `vg` with the products of tiles t0 ..., blocks first .. last - 1 of V."""
    pixels = plan.tile.pixels
    # Tile after tile within a block of channels: rows of the input are read from left to right.
    return [
        f"int64_t at[{pixels}], tops[{pixels}], lefts[{pixels}];",
        f"for (int64_t p = 0; p < {pixels}; p++) {{",
        "    const int64_t t = tl_min(t0 + p, TILES - 1), n = t / (HIGH * WIDE);",
        *indent(_corner(plan)),
        "    at[p] = ((n * CB * H + tops[p]) * W + lefts[p]) * V;",
        "}",
        f"for (int64_t b = {first}; b < {last}; b++)",
        f"    for (int64_t p = 0; p < {pixels}; p++) {{",
        *indent(_line_of_input(plan) if plan.is_line else _tile_of_input(plan), 2),
        f"        transform_input(from, row, vg + (b * {pixels} + p) * V, {plan.v_step});",
        "    }",
    ]


def _corner(plan: WinogradPlan) -> list[str]:
    """Where the tile `t` begins."""
    step = plan.winograd.outputs * plan.winograd.stride
    dilation = plan.shape.columns.dilation
    if dilation == 1:
        return [f"tops[p] = t / WIDE % HIGH * {step} - PT, lefts[p] = t % WIDE * {step} - PL;"]
    return [f"tops[p] = 0, lefts[p] = t % WIDE * {step * dilation} + t / WIDE % HIGH - PL;"]


def _tile_of_input(plan: WinogradPlan) -> list[str]:
    """The rows of tile `p` in block `b`, from a padded copy at the edges of the map."""
    n, step = plan.winograd.size, plan.winograd.outputs * plan.winograd.stride
    block = "(first + b)" if plan.has_units else "b"
    return [
        "const int64_t h = tops[p], left = lefts[p];",
        f"const float *from = x + at[p] + {block} * H * W * V;",
        "int64_t row = W * V;",
        f"float edge[{n * n} * V];",
        f"if (h < 0 || h + {n} > H || left < 0 || left + {n} > W) {{",
        f"    for (int64_t i = 0; i < {n}; i++)",
        f"        for (int64_t j = 0; j < {n}; j++) {{",
        "            const int rows = h + i >= 0 && h + i < H;",
        "            const int real = rows && left + j >= 0 && left + j < W;",
        "            const vf value = real ? v_load(from + i * row + j * V) : (vf){0};",
        f"            v_store(edge + (i * {n} + j) * V, value);",
        "        }",
        f"    from = edge, row = {n} * V;",
        "}",
        f"for (int64_t i = 0; i < {n}; i++)  /* three tiles on */",
        f"    for (int64_t j = {n - step}; j < {n}; j++)",
        f"        __builtin_prefetch(from + i * row + ({3 * step} + j) * V);",
    ]


def _line_of_input(plan: WinogradPlan) -> list[str]:
    """The same of a line, where `row` is the way from pixel to pixel."""
    n, dilation = plan.winograd.size, plan.shape.columns.dilation
    step = plan.winograd.outputs * plan.winograd.stride
    block, begin = "(first + b)" if plan.has_units else "b", "0"
    if plan.parts > 1:
        block, begin = "(b % CB)", f"b / CB * {plan.winograd.taps * dilation}"
    return [
        f"const int64_t part = {begin}, left = lefts[p] + part;",
        f"const float *from = x + at[p] + ({block} * W + part) * V;",
        f"int64_t row = {dilation} * V;" if dilation > 1 else "int64_t row = V;",
        f"float edge[{n} * V];",
        f"if (left < 0 || left + {(n - 1) * dilation + 1} > W) {{",
        f"    for (int64_t j = 0; j < {n}; j++) {{",
        f"        const int64_t w = left + j * {dilation};",
        "        v_store(edge + j * V, w >= 0 && w < W ? v_load(from + j * row) : (vf){0});",
        "    }",
        "    from = edge, row = V;",
        "}",
        f"for (int64_t j = {n - step}; j < {n}; j++)  /* three tiles on */",
        f"    __builtin_prefetch(from + ({3 * step} + j) * {dilation} * V);",
    ]

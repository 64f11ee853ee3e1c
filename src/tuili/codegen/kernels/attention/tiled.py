"""Attention: softmax(q k^T * scale + mask) v for one head and a block of rows, all in the caches.

A grid item is one block of rows of one head. Keys are packed into column panels in scratch memory,
the scores of the block are computed, exponentiated row by row in place, and multiplied with the
values, so many of them at a time as stay in the nearest cache; the division by the sums is left to
the store. Scores never reach main memory.
Operands are read in their own order of axes: only strides differ.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.tile import Source, Tile, print_tile
from tuili.codegen.targets import Target
from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, ceil_div, dim_min, numel

ROWS = 64  # of a block, about
SCORE_BYTES = 256 * 1024  # of a block: what its thread keeps in the second-level cache
AHEAD_FLOATS = 32 * 1024  # keys and values of the next head that fit the caches beside this one's
CACHE_LINE = 16  # floats
AXES = "bhsd"
Sizes = dict[str, Dim]  # of each axis
# Up to so many rows, as in steps of decoding, packing takes longer than it saves.
FEW_ROWS = 3


def supports(node: Node, ctx: Context) -> bool:
    """f32 in plain layout, of sizes that are known before the run."""
    known = not any(ctx.program.depends_on_data(numel(v.shape)) for v in node.inputs[:3] if v)
    return known and supports_rows(node, ctx)


def supports_rows(node: Node, ctx: Context) -> bool:
    """f32 in plain layout."""
    values = [value for value in (*node.inputs, node.output) if value is not None]
    return all(value.dtype is DType.F32 and not value.layout for value in values)


def emit(node: Node, ctx: Context) -> None:
    """One call over all heads and blocks of rows."""
    q, k_in, v = (node.required(slot) for slot in range(3))
    sizes = sizes_of(node, q, "q_order")
    keys, values = sizes_of(node, k_in, "k_order"), sizes_of(node, v, "v_order")
    lanes = ctx.target.lanes
    tile = Tile(10 if ctx.target.registers >= 32 else 6, 2)
    columns = tile.columns(lanes)
    most = _rows(ctx.target, tile, keys["s"])
    depth = ctx.target.near_bytes // (4 * columns)  # values that stay near
    k = KernelBuilder(ctx, node, "attention")
    mask = read_operands(k, node)
    blocks = ceil_div(sizes["s"], most)
    width = ceil_div(keys["s"], columns) * columns
    value_width = ceil_div(values["d"], columns) * columns
    k.dims("B H S D T E", (*(sizes[axis] for axis in AXES), keys["s"], values["d"]))
    k.dims("BLOCKS WIDTH VALUES", (blocks, width, value_width))
    read_distances(k, node, sizes, keys, values)
    rows = dim_min(sizes["s"], most) if isinstance(sizes["s"], int) else most
    floats = width * sizes["d"] + rows * width + keys["s"] * value_width + rows * columns
    k.scratch(floats * 4)
    k.body(_body(tile, columns, most, depth, attr(node, "scale"), masked=mask is not None))
    pairs = sizes["b"] * sizes["h"] * sizes["s"] * keys["s"]
    traffic = sum((numel(value.shape) for value in (q, k_in, v, node.output)), start=0) * 4
    flops = pairs * (sizes["d"] + values["d"]) * 2 + pairs * 20
    k.emit(grid=sizes["b"] * sizes["h"] * blocks, flops=flops, bytes=traffic)


def _rows(target: Target, tile: Tile, keys: Dim) -> int:
    """Rows of a block: whole tiles, and scores that stay in the cache."""
    most = ROWS if target.near_bytes == 0 else -(-ROWS // tile.rows) * tile.rows
    if target.near_bytes == 0 or not isinstance(keys, int):
        return most
    fitting = SCORE_BYTES // (4 * max(keys, 1)) // tile.rows * tile.rows
    return min(most, max(fitting, 2 * tile.rows))


def sizes_of(node: Node, value: Value, order: str) -> Sizes:
    """The size of each axis of an operand, by the attribute that names their order."""
    return dict(zip(attr(node, order), value.shape, strict=True))


def read_operands(k: KernelBuilder, node: Node) -> Value | None:
    """The parameters `q k v mask y`; the mask, if there is one."""
    for slot, name in enumerate(("q", "k", "v")):
        k.read(name, node.required(slot))
    mask = node.input(3)
    if mask is not None:
        k.read("mask", mask)
    k.write("y", node.output)
    return mask


def read_distances(k: KernelBuilder, node: Node, sizes: Sizes, keys: Sizes, values: Sizes) -> None:
    """How many heads share keys, and the distances in all operands."""
    k.dim("SHARED", sizes["h"] // keys["h"] if sizes["h"] != keys["h"] else 1)
    _strides(k, "Q", sizes, attr(node, "q_order"))
    _strides(k, "K", keys, attr(node, "k_order"))
    _strides(k, "U", values, attr(node, "v_order"))
    _strides(k, "Y", {**sizes, "d": values["d"]}, attr(node, "y_order"))
    mask = node.input(3)
    if mask is not None:
        _mask_strides(k, mask)


def _strides(k: KernelBuilder, name: str, sizes: Sizes, order: str) -> None:
    """Distances in floats: `QB QH QS QD` for an operand called Q."""
    step: Dim = 1
    strides: dict[str, Dim] = {}
    for axis in reversed(order):
        strides[axis] = step
        step = step * sizes[axis]
    for axis in AXES:
        k.dim(f"{name}{axis.upper()}", strides[axis])


def _mask_strides(k: KernelBuilder, mask: Value) -> None:
    """Distances in the mask; 0 along an axis that is 1 at run time."""
    shape = (1,) * (4 - len(mask.shape)) + tuple(mask.shape)
    k.dims("MB_SIZE MH_SIZE MS_SIZE MT_SIZE", shape)
    k.body(
        """
        const int64_t MT = MT_SIZE == 1 ? 0 : 1, MS = MS_SIZE == 1 ? 0 : MT_SIZE;
        const int64_t MH = MH_SIZE == 1 ? 0 : MS_SIZE * MT_SIZE;
        const int64_t MB = MB_SIZE == 1 ? 0 : MH_SIZE * MS_SIZE * MT_SIZE;
        """
    )


def _body(tile: Tile, columns: int, rows: int, depth: int, scale: float, *, masked: bool) -> str:
    at = "MB * b + MH * h + MS * (first + row + {r})"

    def store_scores(r: int, v: int) -> list[str]:
        return _store_scores(r, v, scale, at.format(r=r) if masked else "")

    heights = range(1, tile.rows + 1)
    scores = _Product("q_rows", "QS", "panel", str(columns), "D", store_scores)
    results = _Product(
        "weights + k0", "WIDTH", "packed_v + k0 * VALUES + col", "VALUES", "DEPTH", _store_result,
        f"sums + row * {columns}" if depth else "",
    )  # fmt: skip
    return _TEMPLATE.format(
        columns=columns,
        rows=rows,
        depth=depth or "T",
        few=FEW_ROWS,
        ahead=AHEAD_FLOATS,
        line=CACHE_LINE,
        direct_scores=textwrap.indent(_direct_scores(scale, masked=masked), " " * 12).lstrip(),
        direct_results=textwrap.indent(_DIRECT_RESULTS.strip(), " " * 12).lstrip(),
        scores=textwrap.indent(_tiles(tile, heights, scores), " " * 8).lstrip(),
        results=textwrap.indent(_tiles(tile, heights, results), " " * 12).lstrip(),
    )


@dataclass(frozen=True, slots=True)
class _Product:
    """The operands of one matrix product as C text, and how a register is stored."""

    a: str
    lda: str
    b: str
    ldb: str
    depth: str
    store: Callable[[int, int], list[str]]
    sums: str = ""  # where sums over a part of the depth are kept


def _tiles(tile: Tile, heights: range, product: _Product) -> str:
    """C for the rows of a block, `count` of them, and one panel of columns."""
    a, lda, store = f"({product.a} + row * {product.lda})", product.lda, product.store
    b, ldb, depth = f"({product.b})", product.ldb, product.depth
    cases: list[str] = []
    for rows in heights:
        pairs = [(r, v) for r in range(rows) for v in range(tile.vectors)]
        lines = print_tile(
            rows, tile.vectors, Source(a, lda, b, ldb, depth, sums=product.sums and "kept")
        )
        stores = [line for r, v in pairs for line in store(r, v)]
        if product.sums:
            lines.insert(0, f"float *const kept = {product.sums};")
            kept = [f"    v_store(kept + {i} * V, acc{r}_{v});" for i, (r, v) in enumerate(pairs)]
            stores = ["if (k0 + DEPTH < T) {", *kept, "} else {", *stores, "}"]
        lines += stores
        cases.append(
            f"case {rows}: {{\n" + textwrap.indent("\n".join(lines), "    ") + "\n    break;\n}"
        )
    most = tile.rows
    return "\n".join(
        [
            "for (int64_t row = 0; row < count;) {",
            f"    const int64_t left = count - row, tiles = (left + {most - 1}) / {most};",
            "    const int64_t height = (left + tiles - 1) / tiles;",
            "    switch (height) {",
            textwrap.indent("\n".join(cases), "    "),
            "    }",
            "    row += height;",
            "}",
        ]
    )


def _store_scores(r: int, v: int, scale: float, mask_at: str) -> list[str]:
    acc = f"acc{r}_{v}" if scale == 1 else f"acc{r}_{v} * v_set1({scale!r}f)"
    at = f"weights + (row + {r}) * WIDTH + col + {v} * V"
    if not mask_at:
        return [f"v_store({at}, {acc});"]
    return [
        "{",
        f"    const int64_t t = col + {v} * V;",
        f"    const float *const m = mask + {mask_at} + MT * t;",
        "    const vf term = MT == 0       ? v_set1(m[0])",
        "                    : t + V <= T ? v_load(m)",
        "                                 : v_loadn(m, tl_max(T - t, 0));",
        f"    v_store({at}, {acc} + term);",
        "}",
    ]


def _store_result(r: int, v: int) -> list[str]:
    return [
        "{",
        f"    float *const to = out + (row + {r}) * YS + col + {v} * V;",
        f"    const vf result = acc{r}_{v} * v_set1(inverse[row + {r}]);",
        f"    const int64_t room = E - col - {v} * V;",
        "    if (room >= V) v_store(to, result);",
        "    else if (room > 0) v_storen(to, result, room);",
        "}",
    ]


def _direct_scores(scale: float, *, masked: bool) -> str:
    """C for one row of scores, keys as they lie."""
    head = "const float *const m = mask + MB * b + MH * h + MS * (first + row);\n" if masked else ""
    term = " + m[MT * t]" if masked else ""
    return head + _DIRECT_SCORES.strip().replace("SCALE", f"{scale!r}f").replace(" TERM", term)


_DIRECT_SCORES = """
const float *const q_row = q_rows + row * QS;
float *const w = weights + row * WIDTH;
for (int64_t t = 0; t < T; t++) {
    const float *const key = k0 + t * KS;
    vf dots = v_set1(0.0f);
    int64_t d = 0;
    if (QD == 1)
        for (; d + V <= D; d += V)
            dots += v_load(q_row + d) * v_load(key + d);
    float dot = v_sum(dots);
    for (; d < D; d++)
        dot += q_row[d * QD] * key[d];
    w[t] = dot * SCALE TERM;
}
"""

_DIRECT_RESULTS = """
const float *const w = weights + row * WIDTH;
float *const to = out + row * YS;
const vf last = v_set1(inverse[row]);
int64_t e = 0;
for (; e + 4 * V <= E; e += 4 * V) {
    vf sum0 = v_set1(0.0f), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (int64_t t = 0; t < T; t++) {
        const float *const value = v0 + t * US + e;
        const vf weight = v_set1(w[t]);
        sum0 += weight * v_load(value), sum1 += weight * v_load(value + V);
        sum2 += weight * v_load(value + 2 * V), sum3 += weight * v_load(value + 3 * V);
    }
    v_store(to + e, sum0 * last), v_store(to + e + V, sum1 * last);
    v_store(to + e + 2 * V, sum2 * last), v_store(to + e + 3 * V, sum3 * last);
}
for (; e < E; e += V) {
    const int64_t room = E - e;
    vf sum = v_set1(0.0f);
    for (int64_t t = 0; t < T; t++) {
        const float *const value = v0 + t * US + e;
        sum += v_set1(w[t]) * (room >= V ? v_load(value) : v_loadn(value, room));
    }
    if (room >= V) v_store(to + e, sum * last);
    else v_storen(to + e, sum * last, room);
}
"""

_TEMPLATE = """
float *const packed_k = (float *)scratch;
float *const packed_v = packed_k + WIDTH * D;
float *const sums = packed_v + T * VALUES;
float *const weights = sums + tl_min({rows}, S) * {columns};
float inverse[{rows}];
int64_t packed_for = -1;
for (int64_t item = begin; item < end; item++) {{
    const int64_t head = item / BLOCKS, b = head / H, h = head % H;
    const int64_t first = item % BLOCKS * {rows}, count = tl_min({rows}, S - first);
    const int64_t key_head = h / SHARED, source = b * H + key_head;
    const float *const q_rows = q + b * QB + h * QH + first * QS;
    float *const out = y + b * YB + h * YH + first * YS;
    const int few = S <= {few} && KD == 1 && UD == 1;
    if (!few && source != packed_for) {{
        /* keys as panels of {columns} columns, values as rows, both zero padded */
        const float *const k0 = k + b * KB + key_head * KH, *const v0 = v + b * UB + key_head * UH;
        int64_t whole = 0;
        if (KD == 1 && D % V == 0)
            for (; whole + V <= T; whole += V)
                for (int64_t d = 0; d < D; d += V)
                    tl_transpose(k0 + whole * KS + d, KS,
                                 packed_k + whole / {columns} * {columns} * D + whole % {columns}
                                     + d * {columns},
                                 {columns});
        for (int64_t t = whole; t < WIDTH; t++) {{
            float *const to = packed_k + t / {columns} * {columns} * D + t % {columns};
            for (int64_t d = 0; d < D; d++)
                to[d * {columns}] = t < T ? k0[t * KS + d * KD] : 0.0f;
        }}
        for (int64_t t = 0; t < T; t++) {{
            int64_t e = 0;
            if (UD == 1)
                for (; e + V <= E; e += V)
                    v_store(packed_v + t * VALUES + e, v_load(v0 + t * US + e));
            for (; e < VALUES; e++)
                packed_v[t * VALUES + e] = e < E ? v0[t * US + e * UD] : 0.0f;
        }}
        packed_for = source;
    }}
    if (few) {{
        const float *const k0 = k + b * KB + key_head * KH;
        for (int64_t row = 0; row < count; row++) {{
            {direct_scores}
        }}
    }} else for (int64_t col = 0; col < WIDTH; col += {columns}) {{
        const float *const panel = packed_k + col * D;
        {scores}
    }}
    /* rows of the next head are asked for while exponentials take their time */
    const int64_t next = head + 1, nb = next / H, nh = next % H;
    const int ask = next < B * H && T * (D + E) <= {ahead};
    const float *const next_q = q + nb * QB + nh * QH + first * QS;
    const float *const next_k = k + nb * KB + nh / SHARED * KH + first * KS;
    const float *const next_v = v + nb * UB + nh / SHARED * UH + first * US;
    for (int64_t row = 0; row < count; row++) {{
        float *const w = weights + row * WIDTH;
        int64_t t = 0;
        if (ask) {{
            for (int64_t d = 0; d < D; d += {line})
                __builtin_prefetch(next_q + row * QS + d, 0, 2);
            for (int64_t d = 0; d < D && first + row < T; d += {line})
                __builtin_prefetch(next_k + row * KS + d, 0, 2);
            for (int64_t e = 0; e < E && first + row < T; e += {line})
                __builtin_prefetch(next_v + row * US + e, 0, 2);
        }}
        float top = w[0], sum = 0.0f;
        if (T >= V) {{
            vf tops = v_load(w);
            for (t = V; t + V <= T; t += V)
                tops = v_max(tops, v_load(w + t));
            top = v_hmax(tops);
        }}
        for (; t < T; t++)
            top = w[t] > top ? w[t] : top;
        const int sees = !(top < -3.40282347e38f); /* else minus infinity masks every key */
        if (!sees) top = 0.0f;
        vf sums = v_set1(0.0f);
        for (t = 0; t + V <= T; t += V) {{
            const vf e = v_exp_below(v_load(w + t) - v_set1(top));
            v_store(w + t, e);
            sums += e;
        }}
        if (t < T) {{
            const vf power = v_exp_below(v_load(w + t) - v_set1(top));
            const vf e = v_select(v_head(T - t), power, v_set1(0.0f));
            v_store(w + t, e);
            sums += e;
        }}
        sum = v_sum(sums);
        inverse[row] = sees ? 1.0f / sum : 0.0f;
    }}
    if (few) {{
        const float *const v0 = v + b * UB + key_head * UH;
        for (int64_t row = 0; row < count; row++) {{
            {direct_results}
        }}
    }} else for (int64_t col = 0; col < E; col += {columns})
        for (int64_t k0 = 0; k0 == 0 || k0 < T; k0 += {depth}) {{
            const int64_t DEPTH = tl_min({depth}, T - k0);
            {results}
        }}
}}"""

"""Attention row by row: for sizes that data decides, where no scratch memory can be planned.

A grid item is one row of queries of one head. Its scores lie in a buffer of their own.
"""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.attention.tiled import AXES, read_distances, read_operands, sizes_of
from tuili.ir import Node
from tuili.lower.program import View
from tuili.ops.table import attr
from tuili.tensors import DType, numel


def emit(node: Node, ctx: Context) -> None:
    """One call over all rows of all heads."""
    q, keys, v = (node.required(slot) for slot in range(3))
    sizes, key_sizes = sizes_of(node, q, "q_order"), sizes_of(node, keys, "k_order")
    value_sizes = sizes_of(node, v, "v_order")
    batch, heads, rows, depth = (sizes[axis] for axis in AXES)
    count, width = key_sizes["s"], value_sizes["d"]
    k = KernelBuilder(ctx, node, "attention_rows")
    mask = read_operands(k, node)
    scores: View = k.temp("scores", DType.F32, batch * heads * rows * count)
    k.write("scores", scores)
    k.dims("H S D T E", (heads, rows, depth, count, width))
    read_distances(k, node, sizes, key_sizes, value_sizes)
    term = " + mask[MB * b + MH * h + MS * s + MT * t]" if mask is not None else ""
    k.body(_BODY.replace("TERM", term).replace("SCALE", f"{attr(node, 'scale')!r}f"))
    pairs = batch * heads * rows * count
    traffic = sum((numel(value.shape) for value in (q, keys, v, node.output)), start=0) * 4
    k.emit(grid=batch * heads * rows, flops=pairs * (depth + width) * 2, bytes=traffic)


_BODY = """
for (int64_t item = begin; item < end; item++) {
    const int64_t s = item % S, h = item / S % H, b = item / S / H, shared = h / SHARED;
    const float *const row = q + b * QB + h * QH + s * QS;
    const float *const keys = k + b * KB + shared * KH, *const values = v + b * UB + shared * UH;
    float *const w = scores + item * T, *const out = y + b * YB + h * YH + s * YS;
    float top = -INFINITY, sum = 0.0f;
    for (int64_t t = 0; t < T; t++) {
        float dot = 0.0f;
        for (int64_t d = 0; d < D; d++)
            dot += row[d * QD] * keys[t * KS + d * KD];
        w[t] = dot * SCALETERM;
        top = w[t] > top || w[t] != w[t] ? w[t] : top;
    }
    const int sees = !(top < -3.40282347e38f); /* else minus infinity masks every key */
    for (int64_t t = 0; t < T; t++) {
        w[t] = sees ? expf(w[t] - top) : 0.0f;
        sum += w[t];
    }
    for (int64_t e = 0; e < E; e++)
        out[e * YD] = 0.0f;
    for (int64_t t = 0; t < T; t++)
        for (int64_t e = 0; e < E; e++)
            out[e * YD] += w[t] * values[t * US + e * UD];
    for (int64_t e = 0; e < E; e++)
        out[e * YD] *= sees ? 1.0f / sum : 0.0f;
}
"""

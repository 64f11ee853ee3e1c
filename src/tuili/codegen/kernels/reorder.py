"""Reorder: between row-major and channels in blocks of one vector; numerically the identity.

A grid item is one block of channels of one picture: b rows of pixels against pixels of b lanes.
"""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, physical_shape
from tuili.ir import Node, block_of
from tuili.tensors import DType, ceil_div, numel


def supports(node: Node, ctx: Context) -> bool:
    """Whether one side is row-major f32 and the other blocked."""
    x, y = node.required(0), node.output
    return x.dtype is DType.F32 and (not x.layout or not y.layout) and x.layout != y.layout


def emit(node: Node, ctx: Context) -> None:
    """Print the copy in the direction of the node's layouts."""
    x, y = node.required(0), node.output
    to_blocks = bool(y.layout)
    block = block_of(y.layout or x.layout)
    batch, channels, *space = y.shape
    pixels = numel(space)
    k = KernelBuilder(ctx, node, f"reorder_to_{y.layout or 'plain'}")
    k.read("x", x)
    k.write("y", y)
    k.dims("C GROUPS HW", (channels, ceil_div(channels, block), pixels))
    whole = isinstance(channels, int) and channels % block == 0
    text = _TO_BLOCKS if to_blocks else _TO_PLAIN
    k.body(text.replace("USED", "V" if whole else "tl_min(V, C - first)"))
    grid = batch * ceil_div(channels, block)
    k.emit(grid=grid, bytes=4 * (numel(physical_shape(x.tensor)) + numel(physical_shape(y.tensor))))


_TO_BLOCKS = """
for (int64_t item = begin; item < end; item++) {
    const int64_t n = item / GROUPS, first = item % GROUPS * V, used = USED;
    const float *const from = x + (n * C + first) * HW;
    float *const to = y + item * HW * V;
    int64_t p = 0;
    if (used == V)
        for (; p + V <= HW; p += V)
            tl_transpose(from + p, HW, to + p * V, V);
    for (; p + V <= HW; p += V)
        tl_transpose_part(from + p, HW, used, V, to + p * V, V, V);
    if (p < HW)
        tl_transpose_part(from + p, HW, used, HW - p, to + p * V, V, V);
}
"""

_TO_PLAIN = """
for (int64_t item = begin; item < end; item++) {
    const int64_t n = item / GROUPS, first = item % GROUPS * V, used = USED;
    const float *const from = x + item * HW * V;
    float *const to = y + (n * C + first) * HW;
    int64_t p = 0;
    if (used == V)
        for (; p + V <= HW; p += V)
            tl_transpose(from + p * V, V, to + p, HW);
    for (; p + V <= HW; p += V)
        tl_transpose_part(from + p * V, V, V, used, to + p, HW, V);
    if (p < HW)
        tl_transpose_part(from + p * V, V, HW - p, used, to + p, HW, HW - p);
}
"""

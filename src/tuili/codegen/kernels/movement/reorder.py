"""Reorder: between row-major and channels in blocks of one vector; numerically the identity.

A grid item is one block of channels of one picture: b rows of pixels against pixels of b lanes.
"""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, physical_shape
from tuili.ir import Node, block_of
from tuili.tensors import DType, ceil_div, numel


def supports(node: Node, ctx: Context) -> bool:
    """Whether one side is row-major and the other blocked, of floats or bytes."""
    x, y = node.required(0), node.output
    known = x.dtype in (DType.F32, DType.U8, DType.I8)
    return known and (not x.layout or not y.layout) and x.layout != y.layout


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
    if x.dtype is DType.F32:
        text = _TO_BLOCKS if to_blocks else _TO_PLAIN
    else:
        text = (_BYTES_TO_BLOCKS if to_blocks else _BYTES_TO_PLAIN).replace("BYTE", x.dtype.c)
    k.body(text.replace("USED", "V" if whole else "tl_min(V, C - first)"))
    grid = batch * ceil_div(channels, block)
    count = numel(physical_shape(x.tensor)) + numel(physical_shape(y.tensor))
    k.emit(grid=grid, bytes=x.dtype.itemsize * count)


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

_BYTES_TO_BLOCKS = """
for (int64_t item = begin; item < end; item++) {
    const int64_t n = item / GROUPS, first = item % GROUPS * V, used = USED;
    const BYTE *const from = x + (n * C + first) * HW;
    BYTE *const to = y + item * HW * V;
    for (int64_t p = 0; p < HW; p++)
        for (int64_t c = 0; c < V; c++)
            to[p * V + c] = c < used ? from[c * HW + p] : 0;
}
"""

_BYTES_TO_PLAIN = """
for (int64_t item = begin; item < end; item++) {
    const int64_t n = item / GROUPS, first = item % GROUPS * V, used = USED;
    const BYTE *const from = x + item * HW * V;
    BYTE *const to = y + (n * C + first) * HW;
    for (int64_t c = 0; c < used; c++)
        for (int64_t p = 0; p < HW; p++)
            to[c * HW + p] = from[p * V + c];
}
"""

"""Frames: copies of whole pictures; a grid item is one of them.

Blocked pictures of whole blocks of channels lie side by side as plain ones do.
"""

from __future__ import annotations

from tuili.codegen.element_types import is_native
from tuili.codegen.kernel import Context, KernelBuilder, physical_shape, size_of
from tuili.ir import Node
from tuili.ops.frames import count_windows
from tuili.ops.table import attr
from tuili.tensors import numel


def supports(node: Node, ctx: Context) -> bool:
    """Both sides in one layout, and known counts."""
    x = node.required(0)
    same = x.layout == node.output.layout and is_native(x.dtype)
    in_bytes = not attr(node, "fill") or x.dtype.itemsize == 1
    return same and in_bytes and ctx.contents.dims(node.required(1)) is not None


def emit(node: Node, ctx: Context) -> None:
    """Print the copies."""
    x, y, taps = node.required(0), node.output, attr(node, "taps")
    counts = ctx.contents.dims(node.required(1))
    assert counts is not None  # supports
    if 0 in y.shape:
        return
    k = KernelBuilder(ctx, node, "frames")
    k.read("x", x, "uint8_t")
    k.write("y", y, "uint8_t")
    size = numel(physical_shape(x.tensor)[1:]) * x.dtype.itemsize
    stride, dilation, pads = attr(node, "stride"), attr(node, "dilation"), attr(node, "pads")
    windows = count_windows(counts[1], taps, stride, dilation, pads)
    k.dims("SIZE DEPTH WINDOWS TAPS", (size, counts[1], windows, taps))
    k.dims("STRIDE DILATION PAD", (stride, dilation, pads[0]))
    beside = "d = tl_max(0, tl_min(d, DEPTH - 1));" if attr(node, "clamp") else ""
    k.body(
        f"""
for (int64_t item = begin; item < end; item++) {{
    const int64_t tap = item % TAPS, window = item / TAPS % WINDOWS, n = item / TAPS / WINDOWS;
    int64_t d = window * STRIDE + tap * DILATION - PAD;
    {beside}
    if (d >= 0 && d < DEPTH)
        memcpy(y + item * SIZE, x + (n * DEPTH + d) * SIZE, (size_t)SIZE);
    else
        memset(y + item * SIZE, {attr(node, "fill")}, (size_t)SIZE);
}}"""
    )
    k.emit(grid=y.shape[0] * taps, bytes=size_of(x.tensor) + size_of(y.tensor))

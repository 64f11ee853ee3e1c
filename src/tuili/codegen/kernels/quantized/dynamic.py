"""DynamicQuantizeLinear: the range of the data, then its bytes."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.ir import Node
from tuili.tensors import DType, ceil_div, numel

RUN = 4096


def supports(node: Node, ctx: Context) -> bool:
    """Row-major f32."""
    x = node.required(0)
    return x.dtype is DType.F32 and not x.layout


def emit(node: Node, ctx: Context) -> None:
    """Scale and zero point first; all threads need them for the bytes."""
    x = node.required(0)
    y, scale, zero = node.outputs
    count = numel(x.shape)
    k = KernelBuilder(ctx, node, "quantize_range")
    k.support(row_support("max", "min"))
    k.read("x", x)
    k.write("scale", scale)
    k.write("zero", zero)
    k.dim("COUNT", count)
    k.body(_RANGE)
    k.emit(grid=1, flops=count * 2, bytes=size_of(x.tensor))
    k = KernelBuilder(ctx, node, "quantize_bytes")
    k.read("x", x)
    k.read("scale", scale)
    k.read("zero", zero)
    k.write("y", y)
    k.dim("COUNT", count)
    k.body(_BYTES.replace("RUN", str(RUN)))
    k.emit(grid=ceil_div(count, RUN), flops=count * 4, bytes=count * 5)


_RANGE = """
if (begin < end) {
    const float low = s_min(0.0f, tl_row_min(x, COUNT)), high = s_max(0.0f, tl_row_max(x, COUNT));
    scale[0] = (high - low) / 255.0f;
    const float divisor = scale[0] != 0 ? scale[0] : 1.0f;
    zero[0] = (uint8_t)s_min(s_max(s_round(-low / divisor), 0.0f), 255.0f);
}
"""

_BYTES = """
const float divisor = scale[0] != 0 ? scale[0] : 1.0f, middle = (float)zero[0];
const int64_t last = tl_min(end * RUN, COUNT);
for (int64_t i = begin * RUN; i < last; i++)
    y[i] = (uint8_t)(int32_t)s_min(s_max(s_round(x[i] / divisor) + middle, 0.0f), 255.0f);
"""

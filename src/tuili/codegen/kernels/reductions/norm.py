"""Layer, RMS, instance and group normalisation: statistics of a row, then the row scaled.

A grid item is one row, which stays in the nearest cache between the passes. Statistics take two
passes, the mean and then the squared distances from it, so that nothing cancels.
"""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, numel

OPERATORS = ("LayerNormalization", "RMSNormalization")
BY_CHANNEL = ("InstanceNormalization", "GroupNormalization")


def _is_plain(value: Value) -> bool:
    return value.dtype is DType.F32 and not value.layout


def _axis(node: Node) -> int:
    return int(attr(node, "axis")) % len(node.required(0).shape)


def _covers(node: Node, value: Value | None) -> bool:
    """Whether a scale or bias has one element for each of the row."""
    if value is None:
        return True
    row = node.required(0).shape[_axis(node) :]
    shape = value.shape
    trimmed = shape[len(shape) - len(row) :]
    return tuple(trimmed) == tuple(row) and numel(shape) == numel(row) and _is_plain(value)


def supports_rows(node: Node, ctx: Context) -> bool:
    """f32 rows with a whole row of scales."""
    x = node.required(0)
    return _is_plain(x) and all(_covers(node, node.input(slot)) for slot in (1, 2))


def emit_rows(node: Node, ctx: Context) -> None:
    """LayerNormalization and RMSNormalization."""
    x, y = node.required(0), node.output
    axis = _axis(node)
    rows, length = numel(x.shape[:axis]), numel(x.shape[axis:])
    if 0 in x.shape:
        return
    centred = node.op == "LayerNormalization"
    k = KernelBuilder(ctx, node, "layer_norm" if centred else "rms_norm")
    k.support(row_support(*(("sum", "variance") if centred else ("squares",))))
    k.read("x", x)
    k.read("scale", node.required(1))
    bias = node.input(2) if centred else None
    if bias is not None:
        k.read("bias", bias)
    k.write("y", y)
    stores = _statistics_outputs(k, node)
    k.dim("LENGTH", length)
    k.body(_row_text(float(attr(node, "epsilon")), bias is not None, stores, centred=centred))
    k.emit(grid=rows, flops=numel(x.shape) * 8, bytes=size_of(x.tensor) * 2)


def _statistics_outputs(k: KernelBuilder, node: Node) -> list[str]:
    """Mean and inverse deviation, where somebody reads them."""
    lines: list[str] = []
    for name, value in zip(("mean", "inverse"), node.outputs[1:], strict=False):
        if value.uses:
            k.write(f"{name}_out", value)
            lines.append(f"{name}_out[row] = {name};")
    return lines


def _row_text(epsilon: float, has_bias: bool, stores: list[str], *, centred: bool) -> str:
    statistics = [
        "const float mean = tl_row_sum(from, LENGTH) / (float)LENGTH;",
        "const float variance = tl_row_variance(from, LENGTH, mean) / (float)LENGTH;",
    ]
    if not centred:
        statistics = ["const float variance = tl_row_squares(from, LENGTH) / (float)LENGTH;"]
    moved = "({} - v_set1(mean))" if centred else "{}"

    def scaled(load: str, tail: str) -> str:
        text = f"{moved.format(load.format('from', tail))} * gain * {load.format('scale', tail)}"
        return f"{text} + {load.format('bias', tail)}" if has_bias else text

    return "\n".join(
        [
            "for (int64_t row = begin; row < end; row++) {",
            "    const float *const from = x + row * LENGTH;",
            "    float *const to = y + row * LENGTH;",
            *(f"    {line}" for line in statistics),
            f"    const float inverse = 1.0f / s_sqrt(variance + {epsilon!r}f);",
            *(f"    {line}" for line in stores),
            "    const vf gain = v_set1(inverse);",
            "    int64_t i = 0;",
            "    for (; i + V <= LENGTH; i += V)",
            f"        v_store(to + i, {scaled('v_load({} + i{})', '')});",
            "    if (i < LENGTH)",
            f"        v_storen(to + i, {scaled('v_loadn({} + i{})', ', LENGTH - i')}, LENGTH - i);",
            "}",
        ]
    )


# -- one scale per channel ----------------------------------------------------------------------


def supports_channels(node: Node, ctx: Context) -> bool:
    """f32 in row-major order."""
    return all(_is_plain(node.required(slot)) for slot in range(3))


def emit_channels(node: Node, ctx: Context) -> None:
    """InstanceNormalization and GroupNormalization: a row is one group of channels."""
    x, y = node.required(0), node.output
    batch, channels, *space = x.shape
    if 0 in x.shape:
        return
    grouped = node.op == "GroupNormalization"
    groups: Dim = int(attr(node, "num_groups")) if grouped else channels
    pixels = numel(space)
    each: Dim = channels // groups if grouped else 1
    k = KernelBuilder(ctx, node, "group_norm" if grouped else "instance_norm")
    k.support(row_support("sum", "variance"))
    k.read("x", x)
    k.read("scale", node.required(1))
    k.read("bias", node.required(2))
    k.write("y", y)
    k.dims("GROUPS CHANNELS PIXELS", (groups, each, pixels))
    k.body(_CHANNELS.replace("EPSILON", repr(float(attr(node, "epsilon")))))
    k.emit(grid=batch * groups, flops=numel(x.shape) * 8, bytes=size_of(x.tensor) * 2)


_CHANNELS = """
for (int64_t item = begin; item < end; item++) {
    const int64_t length = CHANNELS * PIXELS, channel = item % GROUPS * CHANNELS;
    const float *from = x + item * length;
    float *to = y + item * length;
    const float mean = tl_row_sum(from, length) / (float)length;
    const float variance = tl_row_variance(from, length, mean) / (float)length;
    const float inverse = 1.0f / s_sqrt(variance + EPSILONf);
    for (int64_t c = channel; c < channel + CHANNELS; c++, from += PIXELS, to += PIXELS) {
        const float gain = inverse * scale[c];
        const vf gains = v_set1(gain), shift = v_set1(bias[c]), middle = v_set1(mean);
        int64_t i = 0;
        for (; i + V <= PIXELS; i += V)
            v_store(to + i, (v_load(from + i) - middle) * gains + shift);
        if (i < PIXELS)
            v_storen(to + i, (v_loadn(from + i, PIXELS - i) - middle) * gains + shift, PIXELS - i);
    }
}
"""

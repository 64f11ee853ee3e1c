"""Pools over whole maps: the mean or the largest of every channel, blocked and plain."""

from __future__ import annotations

from tuili.codegen.element_types import loaded, stored
from tuili.codegen.epilogue import Epilogue
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.ir import Node
from tuili.tensors import Dim, DType, ceil_div, numel

OWN_SLOTS = 1
_SUM = {DType.F64: "double"}  # others are summed in float


def supports_blocked(node: Node, ctx: Context) -> bool:
    """Whether x and y are blocked f32 maps."""
    x, y = node.required(0), node.output
    return x.layout == y.layout == ctx.target.layout and x.dtype is DType.F32


def supports_plain(node: Node, ctx: Context) -> bool:
    """Whether x and y are row-major, of a type that C computes with."""
    x = node.required(0)
    floats = (DType.F32, DType.F64, DType.F16, DType.BF16)
    return not x.layout and not node.output.layout and x.dtype in floats


def emit_blocked(node: Node, ctx: Context) -> None:
    """A grid item is one block of channels of one picture; four sums hide the latency of adding."""
    k, pixels = _begin(node, ctx)
    x = node.required(0)
    blocks = ceil_div(x.shape[1], ctx.target.lanes)
    k.dims("HW CB", (pixels, blocks))
    epilogue = Epilogue(k, node, OWN_SLOTS)
    is_max = node.op == "GlobalMaxPool"
    start = "v_set1(-INFINITY)" if is_max else "(vf){0}"
    step = "s{i} = v_max(s{i}, {x});" if is_max else "s{i} += {x};"
    several = [step.format(i=i, x=f"v_load(xn + (p + {i}) * V)") for i in range(4)]
    total = (
        "v_max(v_max(s0, s1), v_max(s2, s3))"
        if is_max
        else "((s0 + s1) + (s2 + s3)) * v_set1(1.0f / (float)HW)"
    )
    statements, result = epilogue.vector(total, "item * V", "item % CB * V")
    lines = [
        "(void)CB;",
        "for (int64_t item = begin; item < end; item++) {",
        "    const float *const xn = x + item * HW * V;",
        f"    vf s0 = {start}, s1 = s0, s2 = s0, s3 = s0;",
        "    int64_t p = 0;",
        "    for (; p + 4 <= HW; p += 4) {",
        *(f"        {line}" for line in several),
        "    }",
        "    for (; p < HW; p++)",
        f"        {step.format(i=0, x='v_load(xn + p * V)')}",
        *(f"    {line}" for line in statements),
        f"    v_store(y + item * V, {result});",
        "}",
    ]
    k.body("\n".join(lines))
    items = x.shape[0] * blocks
    moved = items * pixels * ctx.target.lanes
    k.emit(grid=items, flops=moved, bytes=moved * 4)


def emit_plain(node: Node, ctx: Context) -> None:
    """A grid item is one channel of one picture."""
    k, pixels = _begin(node, ctx)
    x = node.required(0)
    k.dims("HW C", (pixels, x.shape[1]))
    epilogue = Epilogue(k, node, OWN_SLOTS)
    kind = _SUM.get(x.dtype, "float")
    is_max = node.op == "GlobalMaxPool"
    vector = x.dtype is DType.F32
    value = loaded(x.dtype, "xn[p]")
    step = (
        f"if ({value} > sum || {value} != {value}) sum = {value};" if is_max else f"sum += {value};"
    )
    start = "-INFINITY" if is_max else "0"
    total = "sum" if is_max else f"sum / ({kind})HW"
    statements, result = epilogue.scalar(total, "item", "item % C")
    lines = [
        "(void)C;",
        "for (int64_t item = begin; item < end; item++) {",
        f"    const {x.dtype.c} *const xn = x + item * HW;",
        "    int64_t p = 0;",
        f"    {kind} sum = {start};",
        *(_vector_part(is_max=is_max) if vector else []),
        "    for (; p < HW; p++)",
        f"        {step}",
        *(f"    {line}" for line in statements),
        f"    y[item] = {stored(x.dtype, result)};",
        "}",
    ]
    k.body("\n".join(lines))
    items = x.shape[0] * x.shape[1]
    k.emit(grid=items, flops=items * pixels, bytes=items * pixels * x.dtype.itemsize)


def _vector_part(*, is_max: bool) -> list[str]:
    step = "s = v_max(s, v_load(xn + p));" if is_max else "s += v_load(xn + p);"
    return [
        "    if (HW >= V) {",
        f"        vf s = {'v_set1(-INFINITY)' if is_max else '(vf){0}'};",
        "        for (; p + V <= HW; p += V)",
        f"            {step}",
        f"        sum = {'v_hmax' if is_max else 'v_sum'}(s);",
        "    }",
    ]


def _begin(node: Node, ctx: Context) -> tuple[KernelBuilder, Dim]:
    x = node.required(0)
    pixels = numel(x.shape[2:])
    name = "global_max" if node.op == "GlobalMaxPool" else "global_mean"
    k = KernelBuilder(ctx, node, f"{name}_{x.layout or 'plain'}")
    k.read("x", x)
    k.write("y", node.output)
    return k, pixels

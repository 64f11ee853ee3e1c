"""Softmax, LogSoftmax and Hardmax along any axis: maximum, exponentials with their sum, scaling.

Along the last axis a grid item is one row; along another one it is a column of vectors. Types
other than f32 run the same three passes one element at a time.
"""

from __future__ import annotations

from tuili.codegen.element_types import is_native, loaded, register_type, stored
from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.codegen.kernels.reductions.rows import row_support
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Dim, DType, ceil_div, numel


def supports(node: Node, ctx: Context) -> bool:
    """Row-major tensors of a float type."""
    x = node.required(0)
    return x.dtype.is_float and is_native(x.dtype) and not x.layout


def _axes(node: Node) -> tuple[Dim, Dim, Dim]:
    """(product of the outer axes, the axis, product of the inner axes)."""
    shape = node.output.shape
    axis = int(attr(node, "axis")) % len(shape) if shape else 0
    if not shape:
        return 1, 1, 1
    return numel(shape[:axis]), shape[axis], numel(shape[axis + 1 :])


def emit(node: Node, ctx: Context) -> None:
    """Choose by axis and type."""
    outer, length, inner = _axes(node)
    if 0 in (outer, length, inner):
        return
    dtype = node.output.dtype
    log = node.op == "LogSoftmax"
    k = KernelBuilder(ctx, node, node.op.lower() + ("" if inner == 1 else "_columns"))
    k.read("x", node.required(0))
    k.write("y", node.output)
    k.dim("LENGTH", length)
    if not isinstance(length, int):
        k.body("if (LENGTH == 0)\n    return; /* no first element to start from */")
    if inner != 1 or dtype is not DType.F32:
        k.dim("INNER", inner)
    if dtype is not DType.F32:
        grid = outer * inner
        k.body(_plain(dtype, log=log))
    elif inner == 1:
        grid = outer
        k.support(row_support("top", *(("exponentials",) if log else ())))
        k.body(_LOG_ROW if log else _ROW)
    else:
        columns = ceil_div(inner, ctx.target.lanes)
        grid = outer * columns
        k.dim("COLUMNS", columns)
        k.body(_columns(log=log))
    count = outer * length * inner
    k.emit(grid=grid, flops=count * 25, bytes=size_of(node.output.tensor) * 2)


_ROW = """
for (int64_t row = begin; row < end; row++) {
    const float *const from = x + row * LENGTH;
    float *const to = y + row * LENGTH;
    const vf top = v_set1(tl_row_top(from, LENGTH));
    vf total = v_set1(0.0f);
    int64_t i = 0;
    for (; i + V <= LENGTH; i += V) {
        const vf power = v_exp_below(v_load(from + i) - top);
        v_store(to + i, power);
        total += power;
    }
    if (i < LENGTH) {
        const vf power = v_exp_below(v_loadn(from + i, LENGTH - i) - top);
        v_storen(to + i, power, LENGTH - i);
        total += v_select(v_head(LENGTH - i), power, v_set1(0.0f));
    }
    const vf scale = v_set1(1.0f / v_sum(total));
    for (i = 0; i + V <= LENGTH; i += V)
        v_store(to + i, v_load(to + i) * scale);
    if (i < LENGTH)
        v_storen(to + i, v_loadn(to + i, LENGTH - i) * scale, LENGTH - i);
}
"""

_LOG_ROW = """
for (int64_t row = begin; row < end; row++) {
    const float *const from = x + row * LENGTH;
    float *const to = y + row * LENGTH;
    const float top = tl_row_top(from, LENGTH);
    const vf shift = v_set1(top), size = v_set1(s_log(tl_row_exponentials(from, LENGTH, top)));
    int64_t i = 0;
    for (; i + V <= LENGTH; i += V)
        v_store(to + i, v_load(from + i) - shift - size);
    if (i < LENGTH)
        v_storen(to + i, v_loadn(from + i, LENGTH - i) - shift - size, LENGTH - i);
}
"""

_COLUMN_PASSES = """
vf top = LOAD(from);
for (int64_t l = 1; l < LENGTH; l++)
    top = v_max(LOAD(from + l * INNER), top);
vf total = v_set1(0.0f);
"""

_COLUMN_SOFTMAX = """
for (int64_t l = 0; l < LENGTH; l++) {
    const vf power = v_exp_below(LOAD(from + l * INNER) - top);
    STORE(to + l * INNER, power);
    total += power;
}
const vf scale = 1.0f / total;
for (int64_t l = 0; l < LENGTH; l++)
    STORE(to + l * INNER, LOAD(to + l * INNER) * scale);
"""

_COLUMN_LOG = """
for (int64_t l = 0; l < LENGTH; l++)
    total += v_exp_below(LOAD(from + l * INNER) - top);
const vf size = v_log(total);
for (int64_t l = 0; l < LENGTH; l++)
    STORE(to + l * INNER, LOAD(from + l * INNER) - top - size);
"""


def _columns(*, log: bool) -> str:
    passes = (_COLUMN_PASSES + (_COLUMN_LOG if log else _COLUMN_SOFTMAX)).replace("\n\n", "\n")
    whole = passes.replace("LOAD(", "v_load(").replace("STORE(", "v_store(")
    part = _with_count(passes)
    return "\n".join(
        [
            "for (int64_t item = begin; item < end; item++) {",
            "    const int64_t column = item % COLUMNS * V, used = INNER - column;",
            "    const int64_t at = item / COLUMNS * LENGTH * INNER + column;",
            "    const float *const from = x + at;",
            "    float *const to = y + at;",
            "    if (used >= V) {",
            *(f"        {line}" for line in whole.strip("\n").split("\n")),
            "    } else {",
            *(f"        {line}" for line in part.strip("\n").split("\n")),
            "    }",
            "}",
        ]
    )


def _with_count(text: str) -> str:
    """The passes for fewer than V columns."""
    text = text.replace("LOAD(to + l * INNER)", "v_loadn(to + l * INNER, used)")
    text = text.replace("LOAD(from + l * INNER)", "v_loadn(from + l * INNER, used)")
    text = text.replace("LOAD(from)", "v_loadn(from, used)")
    lines = [
        line.replace("STORE(", "v_storen(").replace(");", ", used);") if "STORE(" in line else line
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def _plain(dtype: DType, *, log: bool) -> str:
    """One element at a time; a grid item is one line along the axis."""
    real = register_type(dtype)
    prefix = "d_" if dtype is DType.F64 else "s_"
    load = loaded(dtype, "x[at + l * INNER]")
    result = f"{load} - top - size" if log else f"{prefix}exp({load} - top) / total"
    size = f"    const {real} size = {prefix}log(total);\n" if log else ""
    return f"""
for (int64_t item = begin; item < end; item++) {{
    const int64_t at = item / INNER * LENGTH * INNER + item % INNER;
    {real} top = -INFINITY, total = 0;
    for (int64_t l = 0; l < LENGTH; l++)
        top = {prefix}max({load}, top);
    for (int64_t l = 0; l < LENGTH; l++)
        total += {prefix}exp({load} - top);
{size}    for (int64_t l = 0; l < LENGTH; l++)
        y[at + l * INNER] = {stored(dtype, result)};
}}"""

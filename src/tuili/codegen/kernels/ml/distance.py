"""CDist: squared distances of every row of A to every row of B, which is known or not.

The differences are squared as they are: |a|² + |b|² - 2ab would lose the digits of near points.
"""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder, size_of
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import DType, numel


def supports(node: Node, ctx: Context) -> bool:
    """Rows of f32 or f64."""
    a, b = node.required(0), node.required(1)
    return a.dtype is b.dtype and a.dtype in (DType.F32, DType.F64)


def emit(node: Node, ctx: Context) -> None:
    """One grid item is a row of A; partial sums side by side keep the vector units busy."""
    a, b, y = node.required(0), node.required(1), node.output
    real = a.dtype.c
    root = "sqrtf" if a.dtype is DType.F32 else "sqrt"
    value = f"{root}(sum)" if attr(node, "metric") == "euclidean" else "sum"
    k = KernelBuilder(ctx, node, f"distance_{a.dtype.value}")
    k.read("a", a)
    k.read("b", b)
    k.write("y", y)
    k.dims("M N WIDTH", (a.shape[0], b.shape[0], a.shape[1]))
    k.body(
        f"""
for (int64_t m = begin; m < end; m++) {{
    const {real} *one = a + m * WIDTH;
    for (int64_t n = 0; n < N; n++) {{
        const {real} *other = b + n * WIDTH;
        {real} part[8] = {{0}}, sum = 0;
        int64_t i = 0;
        for (; i + 8 <= WIDTH; i += 8)
            for (int64_t l = 0; l < 8; l++) {{
                const {real} d = one[i + l] - other[i + l];
                part[l] += d * d;
            }}
        for (int64_t l = 0; l < 8; l++)
            sum += part[l];
        for (; i < WIDTH; i++) {{
            const {real} d = one[i] - other[i];
            sum += d * d;
        }}
        y[m * N + n] = {value};
    }}
}}"""
    )
    flops = numel(y.shape) * a.shape[1] * 3
    k.emit(grid=a.shape[0], flops=flops, bytes=size_of(a.tensor) + size_of(y.tensor))

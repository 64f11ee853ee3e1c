"""MatMul of any element type: three plain loops, the sum in the widest type of its kind."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.matmul import batch_offsets, operands
from tuili.ir import Node
from tuili.tensors import DType, numel

_SUM = {DType.F32: "float", DType.F64: "double", DType.F16: "float"}


def supports_plain(node: Node, ctx: Context) -> bool:
    """Whether C has arithmetic for the element type and nothing is fused."""
    dtype = node.output.dtype
    inputs = (node.required(0), node.required(1))
    known = dtype in _SUM or (dtype.is_int and dtype.bits >= 8)
    plain = all(value.dtype is dtype and not value.layout for value in inputs)
    return known and plain and "epilogue" not in node.attrs and node.input(2) is None


def emit_plain(node: Node, ctx: Context) -> None:
    """x @ w; a grid item is one row of the result."""
    shape = operands(node)
    k = KernelBuilder(ctx, node, f"matmul_{node.output.dtype.value}")
    k.read("x", node.required(0))
    k.read("w", node.required(1))
    k.write("y", node.output)
    k.dims("M K N", (shape.m, shape.k, shape.n))
    offsets = "\n    ".join(batch_offsets(k, shape))
    # Integer sums wrap around: unsigned, so that C allows it.
    total = _SUM.get(node.output.dtype, "uint64_t")
    k.body(
        f"""
for (int64_t item = begin; item < end; item++) {{
    const int64_t batch = item / M, row = item % M;
    {offsets}
    for (int64_t col = 0; col < N; col++) {{
        {total} sum = 0;
        for (int64_t k = 0; k < K; k++)
            sum += ({total})x[x_at + row * K + k] * ({total})w[w_at + k * N + col];
        y[item * N + col] = ({node.output.dtype.c})sum;
    }}
}}"""
    )
    rows = numel(shape.batch) * shape.m
    traffic = (rows * shape.k + shape.k * shape.n + rows * shape.n) * node.output.dtype.itemsize
    # Far from the vector rate: count each operation as eight.
    k.emit(grid=rows, flops=rows * shape.k * shape.n * 16, bytes=traffic)

"""Gather from a constant table of f32 that 16 bits can hold: rows are widened on their way."""

from __future__ import annotations

import numpy as np

from tuili.codegen.half_vectors import half_vectors
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.codegen.kernels.gemm.half_panels import kept_type
from tuili.codegen.kernels.gemm.matmul import is_plain_f32
from tuili.codegen.kernels.movement.gather import wrap_index
from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import numel


def supports(node: Node, ctx: Context) -> bool:
    """Whether the data is a large constant of numbers that 16 bits can hold."""
    data = node.required(0)
    plain = is_plain_f32(data) and not node.required(1).layout and not node.output.layout
    return plain and kept_type(data.constant, rounded=ctx.bf16) is not None


def emit(node: Node, ctx: Context) -> None:
    """A grid item is one index."""
    data, indices, y = node.required(0), node.required(1), node.output
    dtype = kept_type(data.constant, rounded=ctx.bf16)
    assert data.constant is not None  # supports
    assert dtype is not None
    if 0 in y.shape:
        return
    axis = int(attr(node, "axis")) % len(data.shape)
    count, inner = numel(indices.shape), numel(data.shape[axis + 1 :])
    k = KernelBuilder(ctx, node, f"gather_{dtype.value}")
    k.support(half_vectors(ctx.target))
    table = data.constant.astype(dtype.numpy).view(np.uint16).reshape(-1)
    k.weight("x", np.append(table, np.zeros(ctx.target.lanes, np.uint16)))  # vectors reach beyond
    k.read("indices", indices)
    k.write("y", y)
    k.dims("SIZE COUNT INNER", (data.shape[axis], count, inner))
    load = f"v_load_{dtype.value}"
    k.body(
        "\n".join(
            [
                "for (int64_t item = begin; item < end; item++) {",
                *(f"    {line}" for line in wrap_index(k, "at", "indices[item % COUNT]", "SIZE")),
                "    const uint16_t *const from = x + (item / COUNT * SIZE + at) * INNER;",
                "    float *const to = y + item * INNER;",
                "    int64_t i = 0;",
                "    for (; i + V <= INNER; i += V)",
                f"        v_store(to + i, {load}(from + i));",
                "    if (i < INNER)",
                f"        v_storen(to + i, {load}(from + i), INNER - i);",
                "}",
            ]
        )
    )
    k.emit(grid=numel(data.shape[:axis]) * count, bytes=numel(y.shape) * 6)

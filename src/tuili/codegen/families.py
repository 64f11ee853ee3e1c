"""The chooser: for every operator the families that can run it; the first that fits wins."""

from __future__ import annotations

from tuili.codegen.family import Family
from tuili.codegen.kernel import Context
from tuili.codegen.kernels.attention import cache_rows
from tuili.codegen.kernels.attention import plain as attention_plain
from tuili.codegen.kernels.attention import tiled as attention
from tuili.codegen.kernels.bf16 import matmul as bf16_matmul
from tuili.codegen.kernels.control import branch, fault, images, loop, plugin
from tuili.codegen.kernels.conv_families import CONV_FAMILIES
from tuili.codegen.kernels.gemm import codes as matmul_codes
from tuili.codegen.kernels.gemm import dots as matmul_dots
from tuili.codegen.kernels.gemm import halves as matmul_halves
from tuili.codegen.kernels.gemm import matmul
from tuili.codegen.kernels.gemm import plain as matmul_plain
from tuili.codegen.kernels.movement import copy
from tuili.codegen.kernels.quantized import matmul as quantized_matmul
from tuili.codegen.kernels.tensor_families import TENSOR_FAMILIES
from tuili.errors import UnsupportedOperator
from tuili.ir import Node

FAMILIES: dict[str, tuple[Family, ...]] = {
    # op: (Family("name", emit, supports), ...)
    **TENSOR_FAMILIES,
    **CONV_FAMILIES,
    "MatMul": (
        Family("matmul_bf16", bf16_matmul.emit, bf16_matmul.supports),
        Family("matmul_halves", matmul_halves.emit, matmul_halves.supports),
        Family("matmul_packed", matmul.emit_packed, matmul.supports_packed),
        Family("matmul_batched", matmul.emit_batched, matmul.supports_batched),
        Family("matmul_doubles", matmul.emit_batched, matmul.supports_doubles),
        Family("matmul_plain", matmul_plain.emit_plain, matmul_plain.supports_plain),
    ),
    "com.microsoft::MatMulNBits": (
        Family("matmul_dots", matmul_dots.emit, matmul_dots.supports),
        Family("matmul_codes", matmul_codes.emit, matmul_codes.supports),
    ),
    "QMatMul": (Family("qmatmul", quantized_matmul.emit, quantized_matmul.supports),),
    **dict.fromkeys(
        ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"),
        (Family("view", copy.emit_view),),
    ),
    "FusedAttention": (
        Family("attention", attention.emit, attention.supports),
        Family("attention_rows", attention_plain.emit, attention.supports_rows),
    ),
    "CacheRows": (Family("cache_rows", cache_rows.emit, cache_rows.supports),),
    "If": (Family("branch", branch.emit_if),),
    "Loop": (Family("rounds", loop.emit_loop, loop.supports),),
    "Scan": (Family("rounds", loop.emit_scan, loop.supports),),
    "EachImage": (Family("rounds", images.emit_each_image),),
    "Fault": (Family("fault", fault.emit_fault),),
}


def choose(node: Node, ctx: Context) -> Family:
    """The first family that supports the node; raises UnsupportedOperator naming what was tried."""
    families = FAMILIES.get(node.op) or plugin.families(node)
    for at, family in enumerate(families):
        if family.supports(node, ctx):
            refused = tuple(each.name for each in families[:at])
            ctx.program.families[node.label] = (family.name, refused)
            return family
    tried = ", ".join(family.name for family in families) or "none"
    types = ", ".join(str(value.type) for value in node.inputs if value is not None)
    raise UnsupportedOperator(
        f"{node.label}: no kernel runs it for ({types}) on target {ctx.target.name}; "
        f"families tried: {tried}",
        [(node.op, [node.name])],
    )

"""The chooser: for every operator the families that can run it; the first that fits wins."""

from __future__ import annotations

from tuili.codegen.family import Family
from tuili.codegen.kernel import Context
from tuili.codegen.kernels import (
    branch,
    conv_direct,
    copy,
    elementwise,
    matmul,
    matmul_plain,
    reorder,
)
from tuili.errors import UnsupportedOperator
from tuili.ir import Node

_ELEMENTWISE = Family("elementwise", elementwise.emit, elementwise.supports)

FAMILIES: dict[str, tuple[Family, ...]] = {
    # op: (Family("name", emit, supports), ...)
    **dict.fromkeys(elementwise.OPERATORS, (_ELEMENTWISE,)),
    "Conv": (Family("conv_direct", conv_direct.emit_direct, conv_direct.supports_direct),),
    "MatMul": (
        Family("matmul_packed", matmul.emit_packed, matmul.supports_packed),
        Family("matmul_batched", matmul.emit_batched, matmul.supports_batched),
        Family("matmul_plain", matmul_plain.emit_plain, matmul_plain.supports_plain),
    ),
    **dict.fromkeys(
        ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"),
        (Family("view", copy.emit_view),),
    ),
    "If": (Family("branch", branch.emit_if),),
    "Reorder": (Family("reorder", reorder.emit, reorder.supports),),
}


def choose(node: Node, ctx: Context) -> Family:
    """The first family that supports the node; raises UnsupportedOperator naming what was tried."""
    families = FAMILIES.get(node.op, ())
    for family in families:
        if family.supports(node, ctx):
            return family
    tried = ", ".join(family.name for family in families) or "none"
    types = ", ".join(str(value.type) for value in node.inputs if value is not None)
    raise UnsupportedOperator(
        f"{node.label}: no kernel runs it for ({types}) on target {ctx.target.name}; "
        f"families tried: {tried}",
        [(node.op, [node.name])],
    )

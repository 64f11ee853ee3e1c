"""The chooser: for every operator the families that can run it; the first that fits wins."""

from __future__ import annotations

from tuili.codegen.family import Family
from tuili.codegen.kernel import Context
from tuili.codegen.kernels import (
    branch,
    copy,
    elementwise,
    known,
    matmul,
    matmul_plain,
    movement,
    reorder,
)
from tuili.codegen.kernels.conv_families import CONV_FAMILIES
from tuili.errors import UnsupportedOperator
from tuili.ir import Node

_ELEMENTWISE = Family("elementwise", elementwise.emit, elementwise.supports)
_KNOWN = Family("known", known.emit, known.supports)

FAMILIES: dict[str, tuple[Family, ...]] = {
    # op: (Family("name", emit, supports), ...)
    **dict.fromkeys(elementwise.OPERATORS, (_ELEMENTWISE,)),
    **CONV_FAMILIES,
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
    **dict.fromkeys(("Dims", "Shape", "Size"), (_KNOWN,)),
    "Transpose": (Family("strided copy", movement.emit_transpose, movement.supports_plain),),
    "Expand": (Family("strided copy", movement.emit_expand, movement.supports_plain),),
    "Tile": (Family("strided copy", movement.emit_tile, movement.supports_plain),),
    "Slice": (Family("strided copy", movement.emit_slice, movement.supports_slice),),
    "Concat": (Family("strided copy", movement.emit_concat, movement.supports_concat),),
    "Split": (Family("strided copy", movement.emit_split, movement.supports_split),),
    "DepthToSpace": (
        Family("strided copy", movement.emit_depth_to_space, movement.supports_plain),
    ),
    "SpaceToDepth": (
        Family("strided copy", movement.emit_space_to_depth, movement.supports_plain),
    ),
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

"""Known contents: results whose elements are dims, such as shapes; they are written down."""

from __future__ import annotations

from tuili.codegen.element_types import is_native
from tuili.codegen.kernel import Context, KernelBuilder
from tuili.ir import Node
from tuili.tensors import Expr

MOST_NUMBERS = 64


def supports(node: Node, ctx: Context) -> bool:
    """Whether all elements of the result are dims."""
    dims = ctx.contents.dims(node.output)
    if dims is None or len(dims) > MOST_NUMBERS or not is_native(node.output.dtype):
        return False
    # Contents of float tensors may hold quotients too.
    return all(type(dim) in (int, Expr) for dim in dims)


def emit(node: Node, ctx: Context) -> None:
    """Write the dims."""
    dims = ctx.contents.dims(node.output)
    assert dims is not None  # supports
    k = KernelBuilder(ctx, node, "dims")
    k.write("y", node.output)
    lines = ["if (begin >= end)", "    return;"]
    for index, dim in enumerate(dims):
        text = str(dim) if isinstance(dim, int) else k.dim(f"D{index}", dim)
        lines.append(f"y[{index}] = ({node.output.dtype.c})({text});")
    k.body("\n".join(lines))
    k.emit(grid=1, bytes=len(dims) * node.output.dtype.itemsize)

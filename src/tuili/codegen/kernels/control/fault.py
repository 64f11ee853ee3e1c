"""Fault: the run fails with a message; what stands for a branch that cannot run."""

from __future__ import annotations

from tuili.codegen.kernel import Context, KernelBuilder
from tuili.ir import Node


def emit_fault(node: Node, ctx: Context) -> None:
    """The outputs are named, so that the step counts as used, and left alone."""
    k = KernelBuilder(ctx, node, "fault")
    for index, value in enumerate(node.outputs):
        k.write(f"y{index}", value)
    k.body(k.fault(str(node.attrs["message"])))
    k.emit(grid=1)

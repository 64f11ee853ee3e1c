"""If: both branches in the same run function, behind the condition."""

from __future__ import annotations

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.copy import share_or_copy
from tuili.ir import Graph, Node
from tuili.lower.program import Branch, Step


def emit_if(node: Node, ctx: Context) -> None:
    """Each branch writes the node's outputs."""
    condition = ctx.view(node.required(0))
    for value in node.outputs:
        ctx.view(value)
    sides = [_side(node, node.attrs[name], ctx) for name in ("then_branch", "else_branch")]
    ctx.program.steps.append(Branch(node.label, condition, *sides))


def _side(node: Node, graph: object, ctx: Context) -> list[Step]:
    assert isinstance(graph, Graph)
    outer = ctx.program.steps
    ctx.program.steps = []
    for result, value in zip(graph.outputs, node.outputs, strict=True):
        if result.producer is not None and result.producer.graph is graph:
            ctx.views.setdefault(result, ctx.view(value))
    ctx.emit_graph(graph)
    for result, value in zip(graph.outputs, node.outputs, strict=True):
        if ctx.view(result) != ctx.view(value):
            share_or_copy(node.label, result, value, ctx)
    steps, ctx.program.steps = ctx.program.steps, outer
    return steps

"""If: both branches in the same run function, behind the condition."""

from __future__ import annotations

from tuili.codegen.kernel import Context
from tuili.codegen.kernels.movement.copy import share_or_copy
from tuili.ir import Graph, Node
from tuili.lower.program import Branch, SetSymbol, Step


def emit_if(node: Node, ctx: Context) -> None:
    """Each branch writes the node's outputs, and the dims that the branches decide."""
    condition = ctx.view(node.required(0))
    for value in node.outputs:
        ctx.view(value)
    decided = _decided_dims(node, ctx)
    then = _side(node, node.attrs["then_branch"], decided, ctx)
    otherwise = _side(node, node.attrs["else_branch"], decided, ctx)
    symbols = tuple(symbol for symbol, _, _ in decided)
    ctx.program.steps.append(Branch(node.label, condition, then, otherwise, symbols))


def _decided_dims(node: Node, ctx: Context) -> list[tuple[str, int, int]]:
    """(symbol, output, axis) for dims that differ between the branches."""
    return [
        (symbol, index, axis)
        for index, value in enumerate(node.outputs)
        for symbol, axis in ctx.own_symbols(value)
    ]


def _side(
    node: Node, graph: object, decided: list[tuple[str, int, int]], ctx: Context
) -> list[Step]:
    assert isinstance(graph, Graph)
    return ctx.steps_of(lambda: _emit_side(node, graph, decided, ctx))


def _emit_side(node: Node, graph: Graph, decided: list[tuple[str, int, int]], ctx: Context) -> None:
    pairs = list(zip(graph.outputs, node.outputs, strict=True))
    for result, value in pairs:
        own = result.producer is not None and result.producer.graph is graph
        if own and result.shape == value.shape:
            ctx.views.setdefault(result, ctx.view(value))
    ctx.emit_graph(graph)
    for symbol, index, axis in decided:
        dim = graph.outputs[index].shape[axis]
        ctx.program.steps.append(SetSymbol(symbol, dim))
    for result, value in pairs:
        if ctx.view(result) != ctx.view(value):
            share_or_copy(node.label, result, value, ctx)

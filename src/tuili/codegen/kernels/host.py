"""Host steps: nodes without a kernel, run by Python through their NumPy meaning."""

from __future__ import annotations

from tuili.codegen.kernel import Context
from tuili.ir import Graph, Node, TensorType, Value, reads
from tuili.lower.program import HostCall
from tuili.tensors import DType


def can_run_on_host(node: Node) -> bool:
    """Whether all that goes in and out are numbers in plain layout, of known rank."""
    return all(_is_plain(value) for value in (*reads(node), *node.outputs))


def _is_plain(value: Value) -> bool:
    type_ = value.type
    known = isinstance(type_, TensorType) and type_.shape is not None
    return known and not value.layout and value.dtype is not DType.STR


def emit_on_host(node: Node, symbols: tuple[str, ...], why: str, ctx: Context) -> None:
    """One host step; its graph holds the node alone, with everything that it reads as inputs."""
    needed = list(dict.fromkeys(reads(node)))
    graph = _graph_of(node, needed)
    step = HostCall(
        node.label,
        len(ctx.program.host),
        tuple(ctx.view(value) for value in needed),
        tuple(ctx.view(value) for value in node.outputs),
        symbols,
    )
    graph.metadata["why"] = why
    ctx.program.host.append(graph)
    ctx.program.steps.append(step)


def _graph_of(node: Node, needed: list[Value]) -> Graph:
    graph = Graph(node.name or node.op)
    inner = {value: graph.add_input(value.name, value.type) for value in needed}
    for nested in node.graphs():
        for value in nested.captured():
            _redirect(nested, value, inner[value])
    inputs = [None if value is None else inner[value] for value in node.inputs]
    copy = graph.add(
        node.op,
        inputs,
        node.attrs,
        outputs=[value.name for value in node.outputs],
        types=[value.type for value in node.outputs],
        name=node.name,
    )
    graph.set_outputs(copy.outputs)
    return graph


def _redirect(nested: Graph, old: Value, new: Value) -> None:
    """Let everything inside a nested graph read another value."""
    for inner in nested.walk():
        for slot, value in enumerate(inner.inputs):
            if value is old:
                inner.set_input(slot, new)
    nested.set_outputs([new if value is old else value for value in nested.outputs])

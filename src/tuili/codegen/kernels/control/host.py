"""Host steps: nodes without a kernel, run by Python through their NumPy meaning."""

from __future__ import annotations

from tuili.codegen.kernel import Context
from tuili.ir import Graph, Node, Value, reads
from tuili.lower.program import HostCall


def can_run_on_host(node: Node) -> bool:
    """Whether all that goes in and out is in plain layout."""
    return all(value.is_object or not value.layout for value in (*reads(node), *node.outputs))


def meets_objects(node: Node) -> bool:
    """Whether a node takes or gives what only Python can look at.

    What such values are inside of a nested graph alone is no concern of the node around it.
    """
    edges = [value for graph in node.graphs() for value in (*graph.inputs, *graph.outputs)]
    return any(value.is_object for value in (*reads(node), *node.outputs, *edges))


def emit_on_host(node: Node, symbols: tuple[str, ...], why: str, ctx: Context) -> None:
    """One host step; its graph holds the node alone, with everything that it reads as inputs."""
    needed = list(dict.fromkeys(value for value in reads(node) if not _is_embedded(value)))
    _emit(_graph_of(node, needed), node.label, needed, node.outputs, symbols, why, ctx)


def emit_constant(value: Value, ctx: Context) -> None:
    """One host step that makes a constant which native code cannot hold."""
    graph = Graph(value.name)
    graph.set_outputs(graph.add("Identity", [_embedded(graph, value)], types=[value.type]).outputs)
    _emit(graph, f"constant {value.name!r}", [], (value,), (), f"{value.type}", ctx)


def _emit(
    graph: Graph,
    label: str,
    inputs: list[Value],
    outputs: tuple[Value, ...],
    symbols: tuple[str, ...],
    why: str,
    ctx: Context,
) -> None:
    step = HostCall(
        label,
        len(ctx.program.host),
        tuple(ctx.view(value) for value in inputs),
        tuple(ctx.view(value) for value in outputs),
        symbols,
    )
    graph.metadata["why"] = why
    ctx.program.host.append(graph)
    ctx.program.steps.append(step)


def _is_embedded(value: Value) -> bool:
    """Constants that native code cannot hold are a part of the steps that read them."""
    return value.constant is not None and value.is_object


def _embedded(graph: Graph, value: Value) -> Value:
    assert value.constant is not None
    return graph.add_constant(value.constant, value.name)


def _graph_of(node: Node, needed: list[Value]) -> Graph:
    graph = Graph(node.name or node.op)
    inner = {value: graph.add_input(value.name, value.type) for value in needed}
    for value in reads(node):
        if value not in inner:
            inner[value] = _embedded(graph, value)
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

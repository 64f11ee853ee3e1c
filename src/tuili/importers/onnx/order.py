"""Topological order of nodes by names; cycles and names that nothing defines are errors."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from onnx import AttributeProto, GraphProto, NodeProto

from tuili.errors import InvalidModel


def in_order(
    nodes: Sequence[NodeProto], known: Container[str], graph_name: str
) -> Iterable[NodeProto]:
    """The nodes, definitions before uses; `known` are names defined elsewhere."""
    made: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in made:
                raise InvalidModel(
                    f"{label(node)}: output {name!r} is already an output of"
                    f" {label(nodes[made[name]])}; names must be unique"
                )
            made[name] = index
    needs = [_needs(node, made, known, graph_name) for node in nodes]
    if all(need < index for index, found in enumerate(needs) for need in found):
        return nodes
    return _sorted(nodes, needs, graph_name)


def _needs(
    node: NodeProto, made: dict[str, int], known: Container[str], graph_name: str
) -> set[int]:
    found: set[int] = set()
    for name in node.input:
        if name in made:
            found.add(made[name])
        elif name and name not in known:
            raise InvalidModel(
                f"{label(node)} reads {name!r}, which nothing in graph {graph_name!r} defines:"
                " no input, initializer (weight) or node output has that name"
            )
    # Names that an inner graph takes from here; it checks the unknown ones itself.
    return found | {made[name] for name in _captured(node) if name in made}


def label(node: NodeProto) -> str:
    """A node as errors name it."""
    return f"{node.op_type} node {node.name or next(iter(node.output), '')!r}"


def _captured(node: NodeProto) -> set[str]:
    return {name for graph in graphs_of(node) for name in _read_from_outside(graph)}


def graphs_of(node: NodeProto) -> list[GraphProto]:
    """The nested graphs of a node."""
    singles = [attr.g for attr in node.attribute if attr.type == AttributeProto.GRAPH]
    return singles + [graph for attr in node.attribute for graph in attr.graphs]


def _read_from_outside(graph: GraphProto) -> set[str]:
    own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in [*node.input, *_captured(node)] if name}
    return (read | {info.name for info in graph.output}) - own


def _sorted(nodes: Sequence[NodeProto], needs: list[set[int]], graph_name: str) -> list[NodeProto]:
    waiting = [len(found) for found in needs]
    readers: dict[int, list[int]] = {}
    for index, found in enumerate(needs):
        for need in found:
            readers.setdefault(need, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    for index in ready:
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(ready) < len(nodes):
        stuck = [label(node) for node, count in zip(nodes, waiting, strict=True) if count][:5]
        raise InvalidModel(
            f"graph {graph_name!r} has a cycle through {', '.join(stuck)}; a graph must be acyclic"
        )
    return [nodes[index] for index in ready]

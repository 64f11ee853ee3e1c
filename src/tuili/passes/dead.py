"""Dead code: nodes and constants that no output needs."""

from __future__ import annotations

from tuili.ir import Graph, Node


def remove_dead(graph: Graph) -> bool:
    """Remove them, in nested graphs too."""
    doomed: set[Node | Graph] = set()
    for node in reversed(graph.nodes):
        users = {user for value in node.outputs for user, _ in value.uses}
        if users <= doomed:
            doomed.add(node)
    graph.remove(node for node in graph.nodes if node in doomed)
    changed = bool(doomed)
    for node in graph.nodes:
        for nested in node.graphs():
            changed |= remove_dead(nested)
    for value in list(graph.constants.values()):
        if not value.uses:
            graph.remove_constant(value)
            changed = True
    return changed

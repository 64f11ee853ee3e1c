"""Casts: CastLike becomes Cast, so that no node waits for a value only to learn its type."""

from __future__ import annotations

from tuili.ir import Graph, TensorType


def plain_casts(graph: Graph) -> bool:
    """Rewrite every CastLike whose element type is known."""
    changed = False
    for node in graph.nodes:
        if node.op == "CastLike" and isinstance(node.output.type, TensorType):
            node.op = "Cast"
            node.attrs["to"] = node.output.dtype
            node.set_inputs([node.required(0)])
            changed = True
    return changed

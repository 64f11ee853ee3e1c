"""Rewrite: an operator spelt out in others, one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tuili.ir import Graph, Node
from tuili.ops.contents import Contents
from tuili.passes.making import Making


class Rewrite(NamedTuple):
    """How an operator is spelt out, and when it can be."""

    write: Callable[[Making], None]
    fits: Callable[[Node], bool]


def rewrite_nodes(graph: Graph, contents: Contents, table: Mapping[str, Rewrite]) -> bool:
    """Rewrite every node of the table whose types are known."""
    found = [
        (node, rewrite)
        for node in graph.nodes
        if (rewrite := table.get(node.op)) is not None and rewrite.fits(node)
    ]
    for node, rewrite in found:
        rewrite.write(Making(graph, node, contents))
    return bool(found)

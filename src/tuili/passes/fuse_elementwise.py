"""Elementwise fusion: chains and diamonds of elementwise nodes become one `Fused` node.

A node joins the region of its readers when all of them are in it and its shape is the region's, so
that nothing is computed twice and one value leaves. Memory is then read and written once.
"""

from __future__ import annotations

from tuili.ir import Graph, Node
from tuili.passes.body import Body, is_elementwise

MOST_NODES = 48
MOST_OPERANDS = 12


def fuse_elementwise(graph: Graph) -> bool:
    """Fuse every region of two or more nodes; nested graphs are left to their own call."""
    taken: set[Node] = set()
    regions: list[list[Node]] = []
    for node in reversed(graph.nodes):
        if node in taken or not is_elementwise(node):
            continue
        region = _grow(node, taken)
        taken.update(region)
        if len(region) > 1:
            regions.append(region)
    for region in regions:
        _fuse(graph, region)
    return bool(regions)


def _grow(root: Node, taken: set[Node]) -> list[Node]:
    """The region that ends in `root`, in topological order."""
    region = {root}
    operands = set(root.inputs)
    waiting = list(root.inputs)
    while waiting and len(region) < MOST_NODES:
        value = waiting.pop(0)
        node = None if value is None else value.producer
        if node is None or node in region or node in taken or not _joins(node, root, region):
            continue
        grown = (operands - set(node.outputs)) | set(node.inputs)
        if len(grown) > MOST_OPERANDS:
            continue
        region.add(node)
        operands = grown
        # Its inputs' other readers may have just joined: look at everything again.
        waiting.extend(operands)
    graph = root.graph
    assert graph is not None
    return [node for node in graph.nodes if node in region]


def _joins(node: Node, root: Node, region: set[Node]) -> bool:
    if node.graph is not root.graph or not is_elementwise(node) or node.output.is_output:
        return False
    inside = all(user in region for user in node.output.users)
    return inside and node.output.shape == root.output.shape


def _fuse(graph: Graph, region: list[Node]) -> None:
    body = Body()
    for node in region:
        body.copy(node)
    last = region[-1]
    body.graph.set_outputs([body.operand(last.output)])
    # Binding the result made no operand: every operand is an outer value.
    fused = graph.add(
        "Fused",
        body.operands,
        {"body": body.graph},
        outputs=[last.output.name],
        types=[last.output.type],
        name=last.name,
        after=last,
    )
    name = last.output.name
    graph.replace_uses(last.output, fused.output)
    graph.remove(region)
    graph.rename(fused.output, name)

"""Branch inlining: an If whose condition is known becomes the nodes of the branch taken.

A branch that cannot run for the given shapes becomes a `Fault`.
"""

from __future__ import annotations

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.passes.fold import give_way


def inline_branches(graph: Graph, contents: Contents) -> bool:
    """Inline every such If, in nested graphs too."""
    changed = False
    for node in list(graph.nodes):
        changed |= _bar(node, contents)
        for nested in node.graphs():
            changed |= inline_branches(nested, contents)
        taken = contents.dims(node.input(0)) if node.op == "If" else None
        if taken is not None and len(taken) == 1 and isinstance(taken[0], int):
            _inline(graph, node, "then_branch" if taken[0] else "else_branch")
            changed = True
    return changed


def _bar(node: Node, contents: Contents) -> bool:
    """Make branches that cannot run for the given shapes a `Fault` of the run that takes them."""
    barred = [
        (name, branch)
        for name, branch in node.attrs.items()
        if isinstance(branch, Graph) and branch in contents.impossible
    ]
    for name, branch in barred:
        body = Graph(branch.name)
        names = [f"{value.name}_{name}" for value in node.outputs]
        types = [value.type for value in node.outputs]
        message = {"message": contents.impossible[branch]}
        body.set_outputs(body.add("Fault", [], message, outputs=names, types=types).outputs)
        branch.set_outputs(())
        branch.remove(branch.nodes)
        node.attrs[name] = body
    return bool(barred)


def _inline(graph: Graph, node: Node, branch: str) -> None:
    body = node.attrs[branch]
    assert isinstance(body, Graph)
    for constant in list(body.constants.values()):
        assert constant.constant is not None
        moved = graph.add_constant(constant.constant, constant.name)
        moved.type = constant.type
        body.replace_uses(constant, moved)
    for inner in body.nodes:
        _move(graph, body, inner, node)
    returned = body.outputs
    body.set_outputs(())
    results = [own(graph, node, value) for value in returned]
    for old, new in zip(node.outputs, results, strict=True):
        give_way(graph, old, new)
    graph.remove(node)


def _move(graph: Graph, body: Graph, inner: Node, before: Node) -> None:
    names = [value.name for value in inner.outputs]
    types = [value.type for value in inner.outputs]
    attrs, inner.attrs = inner.attrs, {}  # graphs nested in it move with their node
    moved = graph.add(
        inner.op, inner.inputs, attrs, outputs=names, types=types, name=inner.name, before=before
    )
    for old, new in zip(inner.outputs, moved.outputs, strict=True):
        body.replace_uses(old, new)


def own(graph: Graph, node: Node, value: Value) -> Value:
    """The value, or a copy of it when it is not this graph's to rename."""
    made_here = value.producer is not None and value.producer.graph is graph
    if made_here and not value.is_output:
        return value
    return graph.add("Identity", [value], types=[value.type], before=node).output

"""The verifier: the graph's rules, checked one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tuili.errors import InternalError
from tuili.ir.graph import Graph, Node, Value, reads


def _uses_are_right(graph: Graph, _: set[Value]) -> Iterator[str]:
    for node in graph.nodes:
        if node.graph is not graph:
            yield f"{node.label} sits in graph {graph.name!r} but says it belongs to {node.graph}"
        for slot, value in enumerate(node.inputs):
            if value is not None and value.uses.count((node, slot)) != 1:
                yield f"{value.name!r} does not list its use by {node.label} in slot {slot} once"
    for slot, value in enumerate(graph.outputs):
        if value.uses.count((graph, slot)) != 1:
            yield f"{value.name!r} does not list its use as output {slot} of {graph} once"


def _uses_are_live(graph: Graph, _: set[Value]) -> Iterator[str]:
    for value in _definitions(graph):
        for user, slot in value.uses:
            if isinstance(user, Node) and (user.graph is None or user.input(slot) is not value):
                yield f"{value.name!r} lists a use by {user.label} in slot {slot} that is not there"


def _producers_are_right(graph: Graph, _: set[Value]) -> Iterator[str]:
    for node in graph.nodes:
        for value in node.outputs:
            if value.producer is not node:
                yield f"{value.name!r}, output of {node.label}, names {value.producer} as producer"


def _names_are_unique(graph: Graph, outer: set[Value]) -> Iterator[str]:
    seen = {value.name for value in graph.captured() if value in outer}
    for value in _definitions(graph):
        if value.name in seen:
            yield f"two values are called {value.name!r}"
        seen.add(value.name)


def _reads_come_after_definitions(graph: Graph, outer: set[Value]) -> Iterator[str]:
    known = outer | set(graph.inputs) | set(graph.constants.values())
    for node in graph.nodes:
        for value in reads(node):
            if value not in known:
                yield f"{node.label} reads {value.name!r} before it is defined"
        known |= set(node.outputs)
    for value in graph.outputs:
        if value not in known:
            yield f"graph {graph.name!r} returns {value.name!r}, which nothing defines"


RULES: tuple[Callable[[Graph, set[Value]], Iterator[str]], ...] = (
    _uses_are_right,
    _uses_are_live,
    _producers_are_right,
    _names_are_unique,
    _reads_come_after_definitions,
)


def _definitions(graph: Graph) -> list[Value]:
    made = [value for node in graph.nodes for value in node.outputs]
    return [*graph.inputs, *graph.constants.values(), *made]


def verify(graph: Graph, after: str = "", outer: frozenset[Value] = frozenset()) -> None:
    """Check every rule; raises InternalError that names the pass just run, if given."""
    found = [problem for rule in RULES for problem in rule(graph, set(outer))]
    if found:
        blame = f" after pass {after!r}" if after else ""
        raise InternalError(f"graph {graph.name!r} is not valid{blame}: " + "; ".join(found[:5]))
    around = outer | frozenset(_definitions(graph))
    for node in graph.nodes:
        for nested in node.graphs():
            verify(nested, after, around)

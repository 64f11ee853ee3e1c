"""Common subexpressions: equal nodes on equal inputs become one, equal constants too."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

import numpy as np

from tuili.ir import Attr, Graph, Node, Value
from tuili.ops.table import lookup
from tuili.tensors import Array


def share_equal_nodes(graph: Graph) -> bool:
    """Let the later of two equal nodes read the earlier one's results."""
    changed = _share_constants(graph)
    seen: dict[Hashable, Node] = {}
    for node in list(graph.nodes):
        if node.graphs() or lookup(node.op).random:
            continue
        first = seen.setdefault(_key(node), node)
        if first is node or any(value.is_output for value in node.outputs):
            continue
        for old, new in zip(node.outputs, first.outputs, strict=True):
            graph.replace_uses(old, new)
        graph.remove(node)
        changed = True
    return changed


def _key(node: Node) -> Hashable:
    attrs = tuple(sorted((name, _frozen(attr)) for name, attr in node.attrs.items()))
    return (node.op, node.inputs, len(node.outputs), attrs)


def _frozen(attr: Attr) -> str:
    """Attributes are compared by their text: 1 and 1.0 differ."""
    if isinstance(attr, np.ndarray):
        return f"{attr.dtype}{attr.shape}{attr.tobytes().hex()}"
    return f"{type(attr).__name__}:{attr!r}"


def _share_constants(graph: Graph) -> bool:
    seen: dict[Hashable, Value] = {}
    changed = False
    for value in list(graph.constants.values()):
        array = value.constant
        if array is None or array.dtype == object or value.is_output:
            continue
        first = seen.setdefault(_contents(array), value)
        if first is not value:
            graph.replace_uses(value, first)
            graph.remove_constant(value)
            changed = True
    return changed


def _contents(array: Array) -> Hashable:
    # A digest, so that large weights are not kept in memory twice.
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
    return (array.dtype.str, array.shape, digest)

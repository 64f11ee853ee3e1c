"""Common subexpressions: equal nodes on equal inputs become one, equal constants too."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from tuili.ir import Attr, Graph, Node, Value
from tuili.ops.table import lookup
from tuili.tensors import Array

_SAMPLE = 64


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
    alike: dict[Hashable, list[Value]] = {}
    changed = False
    for value in list(graph.constants.values()):
        array = value.constant
        if array is None or array.dtype == object or value.is_output:
            continue
        candidates = alike.setdefault(_sample(array), [])
        first = next((each for each in candidates if _is_equal(each, array)), None)
        if first is None:
            candidates.append(value)
            continue
        graph.replace_uses(value, first)
        graph.remove_constant(value)
        changed = True
    return changed


def _sample(array: Array) -> Hashable:
    """What equal arrays have in common, read from a few elements: weights are large."""
    few = array.reshape(-1)[:: max(1, array.size // _SAMPLE)]
    return (array.dtype.str, array.shape, few.tobytes())


def _is_equal(value: Value, array: Array) -> bool:
    # As bytes: NaN equals itself, and 0.0 is not -0.0.
    assert value.constant is not None
    one, other = (np.ascontiguousarray(each).reshape(-1) for each in (value.constant, array))
    return np.array_equal(one.view(np.uint8), other.view(np.uint8))

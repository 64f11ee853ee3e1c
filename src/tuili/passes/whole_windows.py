"""A pool whose only window covers the whole map becomes the pool that needs no window."""

from __future__ import annotations

from tuili.ir import Graph, Node, TensorType
from tuili.ops.table import attributes
from tuili.ops.windows import defaults

_GLOBAL = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def whole_windows(graph: Graph) -> bool:
    """Rewrite every such pool over a map of known size."""
    found = [node for node in graph.nodes if node.op in _GLOBAL and _covers(node)]
    for node in found:
        node.op, node.attrs = _GLOBAL[node.op], {}
    return bool(found)


def _covers(node: Node) -> bool:
    type_ = node.required(0).type
    if not isinstance(type_, TensorType) or type_.shape is None or len(node.outputs) > 1:
        return False
    attrs = attributes(node)
    maps = type_.shape[2:]
    pads = defaults(attrs["pads"], 2 * len(maps), 0)
    dilations = defaults(attrs["dilations"], len(maps), 1)
    if attrs["auto_pad"] not in ("NOTSET", "VALID") or any(dilation != 1 for dilation in dilations):
        return False
    if attrs.get("count_include_pad") and any(pads):
        return False
    begins = pads[: len(maps)] if attrs["auto_pad"] == "NOTSET" else (0,) * len(maps)
    one = all(dim == 1 for dim in node.output.shape[2:])
    return one and all(
        isinstance(size, int) and taps >= size + begin
        for size, taps, begin in zip(maps, attrs["kernel_shape"], begins, strict=True)
    )

"""Map outputs: what a ZipMap makes of a tensor, one dictionary per row, stays the tensor.

Protocols and languages that know tensors only can then ask for the output. Columns are in the
order of the classes, which the graph's metadata keeps (`classes.NAME`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

from tuili.ir import Graph

CLASSES = "classes."
_LABELS = ("classlabels_int64s", "classlabels_strings")


def plain_map_outputs(graph: Graph) -> bool:
    """Let every ZipMap whose result is a graph output give its input instead."""
    found = [
        node
        for node in graph.nodes
        if node.op == "ai.onnx.ml::ZipMap" and node.output in graph.outputs
    ]
    for node in found:
        labels = next((node.attrs[name] for name in _LABELS if node.attrs.get(name)), ())
        classes = [*cast(Iterable[int | str], labels)]
        graph.metadata[CLASSES + node.output.name] = json.dumps(classes)
        node.op, node.output.type = "Identity", None
        node.attrs.clear()
    return bool(found)

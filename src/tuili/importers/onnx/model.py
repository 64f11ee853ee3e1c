"""ModelProto to graph: operator sets, functions, metadata, names of outputs."""

from __future__ import annotations

from pathlib import Path

import onnx

from tuili.importers.onnx.functions import opsets_of
from tuili.importers.onnx.graphs import GraphReader, World
from tuili.importers.onnx.support import check
from tuili.ir import Graph, Value


def graph_of(model: onnx.ModelProto, folder: Path | None) -> Graph:
    """The graph of a model whose external data lies in `folder`."""
    opsets = opsets_of(model.opset_import) or {"": 1}
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    check(model.graph.node, opsets, functions)
    graph = Graph(model.graph.name or "main")
    for entry in model.metadata_props:
        # `symbol.` is where the graph keeps its own notes.
        key = f"model.{entry.key}" if entry.key.startswith("symbol.") else entry.key
        graph.metadata[key] = entry.value
    GraphReader(World(folder, functions), graph).read(model.graph, {}, opsets, {})
    _name_outputs(graph, [info.name for info in model.graph.output])
    return graph


def _name_outputs(graph: Graph, names: list[str]) -> None:
    """Give every output a value of its own that has the declared name."""
    outputs: list[Value] = []
    for name, value in zip(names, graph.outputs, strict=True):
        if value.name == name and value not in outputs:
            outputs.append(value)
            continue
        for owner, holder in _holders(graph, name):
            if holder is not value:
                owner.rename(holder, f"{name}.inner")
        outputs.append(graph.add("Identity", [value], outputs=[name]).output)
    graph.set_outputs(outputs)


def _holders(graph: Graph, name: str) -> list[tuple[Graph, Value]]:
    """Who has a name: a value of the graph, or of one nested in it, which was read before."""
    nested = [inner for node in graph.walk() for inner in node.graphs()]
    return [(owner, v) for owner in (graph, *nested) for v in owner.defined() if v.name == name]

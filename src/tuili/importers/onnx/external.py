"""Which files beside a model hold its external data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto


def external_files(data: bytes, folder: Path) -> list[Path]:
    """The files that a serialised model names, in order; nothing is read from them."""
    # The key of every such entry; most models have none and need no parsing.
    if b"location" not in data:
        return []
    import onnx

    model = onnx.ModelProto.FromString(data)
    names = {
        entry.value
        for tensor in _tensors(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [folder / name for name in sorted(names)]


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)

"""The saved form of a graph: JSON of a fixed schema, and its arrays as safetensors beside it.

    graph.json          format, version and the graph; schema in docs/reference/graph.schema.json
    graph.safetensors   the bytes of every array; mapped on loading, never copied, never executed

`python -m tuili.ir.saved` prints the JSON Schema.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec

from tuili.errors import InvalidModel, NotFound
from tuili.ir._restoring import Restorer
from tuili.ir._saving import Saver
from tuili.ir._schema import FORMAT, VERSION, SavedHead, SavedModel
from tuili.ir._weights import map_weights, write_weights
from tuili.ir.graph import Graph

# Made on import: the first use of a type from two threads at once ends the process (msgspec).
_decode: Final = msgspec.json.Decoder(SavedModel).decode
_decode_head: Final = msgspec.json.Decoder(SavedHead).decode


def save(graph: Graph, path: Path) -> None:
    """Write the graph to `path` and its arrays beside it, the suffix being `.safetensors`."""
    saver = Saver()
    weights = path.with_suffix(".safetensors")
    model = SavedModel(FORMAT, VERSION, weights.name, saver.graph(graph))
    write_weights(weights, saver.arrays)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=1) + b"\n")


def load(path: Path) -> Graph:
    """The graph saved at `path`; raises InvalidModel for a file that breaks the schema."""
    if not path.is_file():
        raise NotFound(f"saved graph {str(path)!r} does not exist")
    data = path.read_bytes()
    try:
        _check_version(data)
        model = _decode(data)
        return Restorer(map_weights(path.parent / model.weights)).read(model.graph)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise InvalidModel(f"{path} is not a saved graph: {error}") from error
    except InvalidModel as error:
        raise InvalidModel(f"{path}: {error}") from error


def _check_version(data: bytes) -> None:
    head = _decode_head(data)
    if head.format != FORMAT:
        raise InvalidModel(f"its format is {head.format!r}; expected {FORMAT!r}")
    if head.version != VERSION:
        raise InvalidModel(
            f"it has version {head.version} of the format; this tuili reads version {VERSION}."
            " Save the graph again with this tuili, or update tuili"
        )


def schema_text() -> str:
    """The JSON Schema of the saved form."""
    schema = msgspec.json.schema(SavedModel)
    return (
        msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2).decode() + "\n"
    )


if __name__ == "__main__":
    sys.stdout.write(schema_text())

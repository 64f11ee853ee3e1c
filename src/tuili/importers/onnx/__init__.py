"""ONNX: a file, bytes or ModelProto as a graph in the newest operator signatures.

Theory of operation
1. `reading` turns a file into a ModelProto and refuses what is none.
2. `support` looks for operators that nothing below can express, and names all of them at once.
3. `graphs` walks the nodes in topological order. Each node becomes a `Call`; `upgrades` rewrites
   the calls of old operator sets (a table of converters); operators that are functions, of the
   model or of the standard, are expanded by their bodies (`functions`).
Every error names the file and the node.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tuili.errors import InvalidModel, Unsupported, UnsupportedOperator
from tuili.ir import Graph
from tuili.ops.infer import infer
from tuili.ops.table import Op, using

if TYPE_CHECKING:
    from onnx import ModelProto

_SYMPTOMS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def import_model(source: str | Path | bytes | ModelProto, *, operators: Iterable[Op] = ()) -> Graph:
    """The graph of a model; raises InvalidModel for a damaged one, and for unknown operators.

    `operators` are plug-in operators that it may use, beside those of installed packages.
    """
    with using(operators):
        return _imported(source)


def _imported(source: str | Path | bytes | ModelProto) -> Graph:
    try:
        from tuili.importers.onnx.doubts import doubt
        from tuili.importers.onnx.model import graph_of
        from tuili.importers.onnx.reading import read
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        message = "reading ONNX files needs the package `onnx`; pip install 'tuili[onnx]'"
        raise Unsupported(message) from error
    name = str(source) if isinstance(source, str | Path) else "the model"
    try:
        graph = graph_of(*read(source))
        # Types and shapes that clash are the file's fault: say so here, where its name is known.
        infer(graph)
        doubt(graph, name)
        return graph
    except UnsupportedOperator as error:
        raise UnsupportedOperator(f"{name}: {error}", error.operators) from error
    except InvalidModel as error:
        raise InvalidModel(f"{name}: {error}") from error
    except _SYMPTOMS as error:
        # Damage that no check foresaw, such as names that are not text, shows itself anywhere.
        raise InvalidModel(
            f"{name}: the model is damaged and cannot be read ({type(error).__name__}: {error})."
            " If onnx.checker finds nothing wrong with it, please report it"
        ) from error

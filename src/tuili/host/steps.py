"""Host steps: the nodes of a compiled model that Python runs by their NumPy meaning.

A compiled model calls back for a node that has no kernel: first to compute, which also finds the
dims that depend on data, then to copy the results into memory of the found size.
"""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

from tuili.artifact import Artifact
from tuili.errors import UnsupportedOperator
from tuili.host.step import HostStep
from tuili.ir import Graph
from tuili.ir.saved import load as load_graph
from tuili.ir.saved import save as save_graph
from tuili.ops.installed import given
from tuili.ops.table import find, hint, using
from tuili.runtime import HOST_FUNCTION, write_error
from tuili.tensors import Array, symbols_of

_MOST_BYTES = 1 << 31


def host_step(graph: Graph) -> str:
    """A host step as one line: operator, node, and why no kernel runs it."""
    return f"{graph.nodes[0].label}: {graph.metadata.get('why', 'no kernel')}"


def host_files(graphs: list[Graph]) -> dict[str, bytes]:
    """The files of an artifact that hold its host steps."""
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="tuili-host-") as folder:
        for index, graph in enumerate(graphs):
            save_graph(graph, Path(folder) / f"host{index}.json")
        for path in sorted(Path(folder).iterdir()):
            files[path.name] = path.read_bytes()
    return files


class HostSteps:
    """The host steps of one artifact; `function` is what native code calls."""

    def __init__(self, artifact: Artifact) -> None:
        symbols = artifact.manifest.symbols
        inputs = (dim for spec in artifact.inputs for dim in spec.shape)
        bound = {name for dim in inputs for name in symbols_of(dim)}
        graphs = _read_graphs(artifact)
        self._operators = given()
        _check_operators(graphs, artifact)
        self._steps = [HostStep(graph, symbols, bound) for graph in graphs]
        self.passes_objects = any(step.passes_objects for step in self._steps)
        self._results: dict[tuple[int, int], list[Array]] = {}
        self.function = HOST_FUNCTION(self._call)

    def _call(self, context: int, step: int, inputs: int, outputs: int, dims: int) -> int:
        try:
            if inputs:
                self._compute(context, step, inputs, dims)
            else:
                self._copy(context, step, outputs)
        except Exception as error:  # noqa: BLE001 - native code cannot carry an exception
            write_error(context, f"{self._steps[step].name}: {error}")
            return 1
        return 0

    def _compute(self, context: int, step: int, inputs: int, dims: int) -> None:
        if self._operators:
            with using(self._operators):
                self._results[context, step] = self._steps[step].compute(inputs, dims)
        else:
            self._results[context, step] = self._steps[step].compute(inputs, dims)

    def _copy(self, context: int, step: int, outputs: int) -> None:
        results = self._results.pop((context, step))
        addresses = (ctypes.c_void_p * len(results)).from_address(outputs)
        for array, address in zip(results, addresses, strict=True):
            if array.nbytes:
                ctypes.memmove(address or 0, array.ctypes.data, array.nbytes)


def _check_operators(graphs: list[Graph], artifact: Artifact) -> None:
    """Say now which plug-in is missing, not in the middle of a run."""
    for graph in graphs:
        for node in graph.walk():
            if find(node.op) is None:
                message = f"{artifact.path}: {node.label}: unknown operator.{hint(node.op)}"
                raise UnsupportedOperator(message, [(node.op, [node.name])])


def _read_graphs(artifact: Artifact) -> list[Graph]:
    graphs: list[Graph] = []
    with tempfile.TemporaryDirectory(prefix="tuili-host-") as folder:
        for index in range(len(artifact.manifest.host_steps)):
            for suffix in (".json", ".safetensors"):
                name = f"host{index}{suffix}"
                data = artifact.verify_file(name).read(_MOST_BYTES)
                (Path(folder) / name).write_bytes(data)
            graphs.append(load_graph(Path(folder) / f"host{index}.json"))
    return graphs

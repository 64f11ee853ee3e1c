"""Host steps: the nodes of a compiled model that Python runs by their NumPy meaning.

A compiled model calls back for a node that has no kernel: first to compute, which also finds the
dims that depend on data, then to copy the results into memory of the found size.
"""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tuili.artifact import Artifact
from tuili.errors import InvalidArgument, UnsupportedOperator
from tuili.ir import Graph, TensorType, Value
from tuili.ir.saved import load as load_graph
from tuili.ir.saved import save as save_graph
from tuili.ops.installed import given
from tuili.ops.interpret import run
from tuili.ops.table import find, hint, using
from tuili.runtime import HOST_FUNCTION, write_error
from tuili.runtime.objects import current_objects, handle_of
from tuili.tensors import Array, DType, Expr, evaluate, symbols_of

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
        self._symbols = {name: index for index, name in enumerate(artifact.manifest.symbols)}
        inputs = (dim for spec in artifact.inputs for dim in spec.shape)
        self._bound = {name for dim in inputs for name in symbols_of(dim)}
        self._graphs = _read_graphs(artifact)
        self.passes_objects = any(map(_passes_objects, self._graphs))
        self._operators = given()
        _check_operators(self._graphs, artifact)
        self._results: dict[tuple[int, int], list[Array]] = {}
        self.function = HOST_FUNCTION(self._call)

    def _call(self, context: int, step: int, inputs: int, outputs: int, dims: int) -> int:
        try:
            if inputs:
                self._compute(context, step, inputs, dims)
            else:
                self._copy(context, step, outputs)
        except Exception as error:  # noqa: BLE001 - native code cannot carry an exception
            write_error(context, f"{self._graphs[step].name}: {error}")
            return 1
        return 0

    def _compute(self, context: int, step: int, inputs: int, dims: int) -> None:
        graph = self._graphs[step]
        values = (ctypes.c_int64 * max(len(self._symbols), 1)).from_address(dims)
        env = {name: values[index] for name, index in self._symbols.items()}
        addresses = (ctypes.c_void_p * len(graph.inputs)).from_address(inputs)
        feeds = {
            value.name: _value_at(address or 0, value, env)
            for value, address in zip(graph.inputs, addresses, strict=True)
        }
        with np.errstate(all="ignore"), using(self._operators):
            found = list(zip(graph.outputs, run(graph, feeds).values(), strict=True))
        shaped = [(value, np.asarray(result)) for value, result in found if _has_shape(value)]
        for value, array in shaped:
            for dim, size in zip(value.shape, array.shape, strict=True):
                if isinstance(dim, Expr) and dim.symbol and dim.symbol not in self._bound:
                    values[self._symbols[dim.symbol]] = size
        settled = {name: values[index] for name, index in self._symbols.items()}
        for value, array in shaped:
            _check_shape(value, array, settled)
        self._results[context, step] = [_native(value, result) for value, result in found]

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


def _check_shape(value: Value, array: Array, env: dict[str, int]) -> None:
    """Native code has made room for the inferred shape, and reads the result as if it had it."""
    wanted = tuple(evaluate(dim, env) for dim in value.shape)
    if array.shape != wanted:
        raise InvalidArgument(
            f"output {value.name!r} has shape {list(array.shape)}; {list(wanted)} was expected: "
            "the inputs' sizes do not fit together"
        )


def _has_shape(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None


def _is_object(value: Value) -> bool:
    return not _has_shape(value) or value.dtype is DType.STR


def _passes_objects(graph: Graph) -> bool:
    return any(map(_is_object, (*graph.inputs, *graph.outputs)))


def _native(value: Value, result: Any) -> Array:
    """A result as native code takes it over: an array, or the handle of an object."""
    if _is_object(value):
        return handle_of(result, current_objects())
    return np.ascontiguousarray(result, value.dtype.numpy)


def _value_at(address: int, value: Value, env: dict[str, int]) -> Any:
    if _is_object(value):
        return current_objects()[ctypes.c_int64.from_address(address).value]
    return _array_at(address, value, env)


def _array_at(address: int, value: Value, env: dict[str, int]) -> Array:
    shape = [evaluate(dim, env) for dim in value.shape]
    count = int(np.prod(shape, dtype=np.int64)) * value.dtype.itemsize
    if not count:
        return np.empty(shape, value.dtype.numpy)
    memory = (ctypes.c_uint8 * count).from_address(address)
    return np.frombuffer(memory, np.uint8).view(value.dtype.numpy).reshape(shape)


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

"""HostStep: one node that Python runs, between the memory that native code sees and NumPy.

What can be known before a run is known when the model is loaded: a step of a small model takes
tens of microseconds, and most of that would be looking things up.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from tuili.errors import InvalidArgument
from tuili.ir import Graph, TensorType, Value
from tuili.ops.contents import symbols_of_attributes
from tuili.ops.interpret import fixed_node, run
from tuili.runtime.objects import current_objects, handle_of
from tuili.tensors import Array, Expr, evaluate, symbols_of

Env = dict[str, int]


class HostStep:
    """The graph of one node, with the places of its dims among those of the run."""

    def __init__(self, graph: Graph, symbols: Sequence[str], bound: Collection[str]) -> None:
        self.name = graph.name
        edges = (*graph.inputs, *graph.outputs)
        self.passes_objects = any(value.is_object for value in edges)
        self._graph = graph
        self._shaped = [index for index, value in enumerate(graph.outputs) if _has_shape(value)]
        used = {name for value in edges for name in _symbols(value)}
        self._dims = {name: index for index, name in enumerate(symbols) if name in used}
        self._inputs = (ctypes.c_void_p * len(graph.inputs)).from_address
        self._run_dims = (ctypes.c_int64 * max(len(symbols), 1)).from_address
        self._found = self._dims.keys() - set(bound)
        # What nested graphs compute with, though no edge of this node may have it alone.
        nested = _nested_symbols(graph) & set(bound)
        self._inner = {name: index for index, name in enumerate(symbols) if name in nested}
        self._function = _function(graph)

    def compute(self, inputs: int, dims: int) -> list[Array]:
        """The results as native code takes them over, from the addresses of inputs and dims.

        Writes the dims that it finds. Raises InvalidArgument for shapes that do not fit.
        """
        values = self._run_dims(dims)
        env = {name: values[index] for name, index in self._dims.items()}
        given = [
            _value_at(address or 0, value, env)
            for value, address in zip(self._graph.inputs, self._inputs(inputs), strict=True)
        ]
        # A meaning gives all of its results, also those that the node leaves out.
        sizes = {name: values[index] for name, index in self._inner.items()}
        found = self._function(given, sizes)[: len(self._graph.outputs)]
        if self._found:
            self._find(found, env)
            for name in self._found:
                values[self._dims[name]] = env[name]
        for index in self._shaped:
            _check_shape(self._graph.outputs[index], np.shape(found[index]), env)
        pairs = zip(self._graph.outputs, found, strict=True)
        return [_native(value, result) for value, result in pairs]

    def _find(self, found: list[Any], env: Env) -> None:
        for index in self._shaped:
            shape = self._graph.outputs[index].shape
            for dim, size in zip(shape, np.shape(found[index]), strict=True):
                if isinstance(dim, Expr) and dim.symbol in self._found:
                    env[dim.symbol] = size


def _function(graph: Graph) -> Callable[[list[Any], Env], list[Any]]:
    """The graph as a function of its inputs' values, and of sizes in nested graphs."""
    (node,) = graph.nodes
    fixed = fixed_node(node)
    if fixed is None:
        names = [value.name for value in graph.inputs]
        return lambda given, sizes: [
            *run(graph, dict(zip(names, given, strict=True)), sizes).values()
        ]
    places = {value: index for index, value in enumerate(graph.inputs)}
    direct = [None if value is None else places.get(value) for value in node.inputs]
    constants = [None if value is None else value.constant for value in node.inputs]
    return lambda given, _: fixed(
        [
            constant if place is None else given[place]
            for place, constant in zip(direct, constants, strict=True)
        ]
    )


def _has_shape(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None


def _symbols(value: Value) -> set[str]:
    dims = value.shape if _has_shape(value) else ()
    return {name for dim in dims for name in symbols_of(dim)}


def _nested_symbols(graph: Graph) -> set[str]:
    """Symbols among the attributes of all nodes, and the dims of nested values."""
    inner = (value for node in graph.walk() for each in node.graphs() for value in each.defined())
    return symbols_of_attributes(graph) | {name for value in inner for name in _symbols(value)}


def _native(value: Value, result: Any) -> Array:
    """A result as native code takes it over: an array, or the handle of an object."""
    if value.is_object:
        return handle_of(_owned(result), current_objects())
    return np.ascontiguousarray(result, value.dtype.numpy)


def _owned(result: Any) -> Any:
    """An object as it outlives the step: a run uses its memory again, so parts of it are copied."""
    if isinstance(result, np.ndarray):
        return result.copy() if _is_borrowed(result) else result
    if not _holds_arrays(result):
        return result
    if isinstance(result, dict):
        return {key: _owned(item) for key, item in result.items()}
    items = [_owned(item) for item in result]
    same = all(new is old for new, old in zip(items, result, strict=True))
    return result if same else items


def _holds_arrays(result: Any) -> bool:
    """Whether an object has arrays in it: its parts are of one type, so the first leaf tells.

    Classifiers give a dictionary of numbers for each row: looking at every one takes longer than
    computing them.
    """
    return isinstance(next(_leaves(result), None), np.ndarray)


def _leaves(result: Any) -> Iterator[Any]:
    """What is in an object and holds nothing itself."""
    if isinstance(result, dict):
        result = result.values()
    elif not isinstance(result, list | tuple):
        yield result
        return
    for part in result:
        yield from _leaves(part)


def _is_borrowed(array: Array) -> bool:
    """Whether the memory is another's than an array's."""
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    return base is not None


def _check_shape(value: Value, found: tuple[int, ...], env: Env) -> None:
    """Native code has made room for the inferred shape, and reads the result as if it had it."""
    wanted = _sizes(value, env)
    if found != wanted:
        raise InvalidArgument(
            f"output {value.name!r} has shape {list(found)}; {list(wanted)} was expected: "
            "the inputs' sizes do not fit together"
        )


def _sizes(value: Value, env: Env) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else evaluate(dim, env) for dim in value.shape)


def _value_at(address: int, value: Value, env: Env) -> Any:
    if value.is_object:
        return current_objects()[ctypes.c_int64.from_address(address).value]
    shape, dtype = _sizes(value, env), value.dtype.numpy
    count = math.prod(shape) * dtype.itemsize
    if not count:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, (ctypes.c_uint8 * count).from_address(address))

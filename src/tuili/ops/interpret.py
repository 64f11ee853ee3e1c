"""The interpreter: runs any graph by the NumPy meaning of its operators; the oracle for targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tuili.errors import InternalError, InvalidArgument, InvalidModel, TuiliError, nearest
from tuili.ir import Graph, Node, TensorType, Value, reads
from tuili.ops.bounds import lone_symbol
from tuili.ops.contents import origins
from tuili.ops.op import Op
from tuili.ops.table import attributes, lookup
from tuili.ops.verify import slot_at
from tuili.tensors import Array, Dim, DType, Expr, evaluate, shape_text, symbols_of


def run(
    graph: Graph, feeds: Mapping[str, Array], sizes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The outputs of a graph by name; raises InvalidArgument for wrong feeds.

    `sizes` are of symbols that the shapes of the inputs do not tell.
    """
    machine = _Machine(graph, sizes)
    _check_names(graph, feeds)
    for value in graph.inputs:
        machine.feed(value, feeds[value.name])
    return dict(zip((value.name for value in graph.outputs), machine.run(graph), strict=True))


def run_node(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one node for given inputs; what folding constants evaluates with."""
    return _Machine(None).evaluate(node, inputs)


def _check_names(graph: Graph, feeds: Mapping[str, Array]) -> None:
    names = [value.name for value in graph.inputs]
    for name in feeds:
        if name not in names:
            hint = nearest(name, names)
            raise InvalidArgument(f"no input is called {name!r}.{hint} Inputs: {names}")
    for name in names:
        if name not in feeds:
            raise InvalidArgument(f"input {name!r} is missing; inputs: {names}")


def fixed_node(node: Node) -> Callable[[Sequence[Any]], list[Any]] | None:
    """`run_node` for many calls: the operator and its attributes are looked up once.

    None for a node whose attributes take part in the run: nested graphs, open dims.
    """
    op, attrs = lookup(node.op), attributes(node)
    if any(_takes_part(attr) for attr in attrs.values()):
        return None
    return lambda inputs: _evaluated(node, op, dict(attrs), inputs)


def _takes_part(attr: Any) -> bool:
    if isinstance(attr, tuple):
        return any(map(_takes_part, attr))
    return isinstance(attr, Graph | Expr)


def _evaluated(node: Node, op: Op, attrs: dict[str, Any], inputs: Sequence[Any]) -> list[Any]:
    epilogue = attrs.pop("epilogue", None)
    if op.counts_outputs:
        attrs["count"] = len(node.outputs)
    own = inputs if op.inputs and op.inputs[-1].variadic else inputs[: op.own_slots]
    try:
        with np.errstate(all="ignore"):
            found = op.meaning(*own, **attrs)
    except TuiliError:
        raise
    except (ArithmeticError, IndexError, MemoryError, TypeError, ValueError) as error:
        shapes = ", ".join(_described(each) for each in inputs)
        raise InvalidModel(f"{node.label} fails on ({shapes}): {error}") from error
    results = [*found] if isinstance(found, tuple) else [found]
    results = _declared(op, own, results, attrs)
    if epilogue is not None:
        extras = [each for each in inputs[op.own_slots :] if each is not None]
        results[0] = epilogue(results[0], *_aligned(node, results[0], extras))[0]
    return results


class _Machine:
    """Values and symbols while a graph runs."""

    def __init__(self, root: Graph | None, sizes: Mapping[str, int] | None = None) -> None:
        self._values: dict[Value, Any] = {}
        self._symbols = dict(sizes or {})
        self._origins: dict[str, list[tuple[str, str]]] = {}
        for symbol, origin in origins(root.metadata if root else {}).items():
            name, _, element = origin.removesuffix("]").rpartition("[")
            if origin.endswith("]"):
                self._origins.setdefault(name, []).append((symbol, element))

    def feed(self, value: Value, array: Any) -> None:
        """Give a graph input its array, and its symbols their numbers."""
        type_ = value.type
        if isinstance(type_, TensorType):
            array = _checked(value, np.asarray(array), type_)
        self.define(value, array)

    def run(self, graph: Graph) -> list[Any]:
        """Run the nodes of a graph whose inputs are defined; what nobody reads again is freed."""
        waiting = Counter(value for node in graph.nodes for value in set(reads(node)))
        waiting.update(graph.outputs)
        for node in graph.nodes:
            found = [None if value is None else self._read(value) for value in node.inputs]
            for value, result in zip(node.outputs, self.evaluate(node, found), strict=False):
                self.define(value, result)
            self._free(node, graph, waiting)
        return [self._read(value) for value in graph.outputs]

    def _free(self, node: Node, graph: Graph, waiting: Counter[Value]) -> None:
        for value in set(reads(node)):
            waiting[value] -= 1
            # Values of surrounding graphs may be read again, by the next round of a loop.
            made_here = value.producer is not None and value.producer.graph is graph
            if made_here and waiting[value] == 0:
                self._values.pop(value, None)

    def evaluate(self, node: Node, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of one node."""
        attrs = {name: self._attr(value) for name, value in attributes(node).items()}
        return _evaluated(node, lookup(node.op), attrs, inputs)

    def _attr(self, attr: Any) -> Any:
        if isinstance(attr, Graph):
            return Body(self, attr)
        if isinstance(attr, Expr):
            return evaluate(attr, self._symbols)
        if isinstance(attr, tuple):
            return tuple(map(self._attr, attr))
        return attr

    def _read(self, value: Value) -> Any:
        if value.constant is not None:
            return value.constant
        if value not in self._values:
            raise InternalError(f"value {value.name!r} is read before it is computed")
        return self._values[value]

    def size(self, dim: Dim) -> int:
        """A dim in numbers; 0 while data has not decided it."""
        return evaluate(dim, self._symbols) if symbols_of(dim) <= self._symbols.keys() else 0

    def define(self, value: Value, result: Any) -> None:
        """Record a value and the symbols that it settles."""
        self._values[value] = result
        for symbol, element in self._origins.get(value.name, ()):
            self._symbols[symbol] = int(result.ravel()[int(element)])
        type_ = value.type
        if isinstance(type_, TensorType) and type_.shape is not None and type_.shape:
            for dim, size in zip(type_.shape, np.shape(result), strict=False):
                symbol = lone_symbol(dim)
                if symbol is not None:
                    self._symbols[symbol] = size


class Body:
    """A nested graph as a function of its inputs."""

    def __init__(self, machine: _Machine, graph: Graph) -> None:
        self._machine = machine
        self._graph = graph
        self.num_outputs = len(graph.outputs)

    def __call__(self, *arguments: Any) -> list[Any]:
        for value, argument in zip(self._graph.inputs, arguments, strict=True):
            self._machine.define(value, argument)
        return self._machine.run(self._graph)

    def empty(self, output: int, axis: int) -> Array:
        """What stacking no results gives: a zero-size array of the right type."""
        type_ = self._graph.outputs[output].type
        if not isinstance(type_, TensorType):
            return np.zeros(0, np.float32)
        shape = [self._machine.size(dim) for dim in type_.shape or ()]
        shape.insert(axis % (len(shape) + 1), 0)
        return np.zeros(shape, type_.dtype.numpy)


def _checked(value: Value, array: Array, type_: TensorType) -> Array:
    if DType.of(array.dtype) is not type_.dtype:
        found = DType.of(array.dtype).value
        raise InvalidArgument(
            f"input {value.name!r} has dtype {found}; expected {type_.dtype.value}"
        )
    shape = type_.shape
    if shape is None:
        return array
    fits = len(shape) == array.ndim and all(
        size == dim or not isinstance(dim, int)
        for size, dim in zip(array.shape, shape, strict=True)
    )
    if not fits:
        found = shape_text(array.shape)
        raise InvalidArgument(
            f"input {value.name!r} has shape {found}; expected {shape_text(shape)}"
        )
    return array


def _described(item: Any) -> str:
    if isinstance(item, np.ndarray | np.generic):
        return f"{item.dtype}{shape_text(item.shape)}"
    return type(item).__name__


def _declared(
    op: Op, inputs: Sequence[Any], results: list[Any], attrs: Mapping[str, Any]
) -> list[Any]:
    """The results as arrays of the element types that the signature promises."""
    return [_as_slot(op, index, result, inputs, attrs) for index, result in enumerate(results)]


def _as_slot(
    op: Op, index: int, result: Any, inputs: Sequence[Any], attrs: Mapping[str, Any]
) -> Any:
    if result is None or isinstance(result, list | dict):
        return result
    array = np.asarray(result)
    wanted = slot_at(op.outputs, index).type
    dtype: Any = None
    if wanted.startswith("@"):
        kind = attrs[wanted[1:]]
        dtype = kind.numpy if isinstance(kind, DType) else None
    elif wanted[0].isupper():
        slots = ((slot_at(op.inputs, i).type, each) for i, each in enumerate(inputs))
        dtype = next(
            (
                each.dtype
                for kind, each in slots
                if kind == wanted and isinstance(each, np.ndarray | np.generic)
            ),
            None,
        )
    elif wanted != "any":
        dtype = DType(wanted).numpy
    return array if dtype is None or array.dtype == dtype else array.astype(dtype)


def _aligned(node: Node, result: Array, extras: Sequence[Any]) -> list[Any]:
    """Per-channel operands of a convolution run along axis 1; others broadcast as they are."""
    if node.op not in CHANNELS_FIRST:
        return [*extras]
    return [
        each.reshape(-1, *[1] * (result.ndim - 2)) if each.ndim == 1 and each.size > 1 else each
        for each in extras
    ]


CHANNELS_FIRST = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool"})

"""Known contents of small integer tensors, as symbolic dims: what shapes are computed from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.rationals import Number, is_symbolic, quotient
from tuili.ops.requirements import Requirement
from tuili.tensors import Array, Dim, DType, Expr, Sym, symbols_of

# Tensors that hold shapes and indices are short; tables of weights are not worth reading.
MOST_ELEMENTS = 512
_PREFIX = "symbol."
_LARGEST_DENOMINATOR = 1024


class Contents:
    """What is known of the elements of values, and where data-dependent symbols come from.

    A symbol made here stands for an axis of a value (`u0` for `boxes#0`) or for an element of an
    integer value (`v0` for `count[0]`; unlike any other symbol it may be negative). The names are
    kept in the graph's metadata (`symbol.u0`), so that inferring the same graph again gives the
    same symbols.
    """

    def __init__(self, metadata: dict[str, str] | None = None, taken: Iterable[str] = ()) -> None:
        self._known: dict[Value, Array | None] = {}
        self._metadata = {} if metadata is None else metadata
        self._names = {
            origin: key.removeprefix(_PREFIX)
            for key, origin in self._metadata.items()
            if key.startswith(_PREFIX)
        }
        self._taken = {*taken, *self._names.values()}
        self._granted: set[str] = set()
        # Branches of If that cannot run for the given shapes, and why.
        self.impossible: dict[Graph, str] = {}
        # What must hold when the graph runs; a set that keeps its order.
        self.requirements: dict[Requirement, None] = {}
        # The same of nodes in nested graphs: a branch may never run, so they ask where they run.
        self.nested: dict[Node, dict[Requirement, None]] = {}
        self.depth = 0  # of nested graphs

    def get(self, value: Value | None) -> Array | None:
        """The elements as an object array of dims, or None when they are not known."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = None if value.constant is None else as_dims(value.constant)
        return self._known[value]

    def set(self, value: Value, elements: Array) -> None:
        """Record the elements of a value."""
        self._known[value] = elements.astype(object)

    def require(self, node: Node, requirement: Requirement) -> None:
        """Note what the run must check before a node."""
        asked = self.nested.setdefault(node, {}) if self.depth else self.requirements
        asked[requirement] = None

    def forget(self, node: Node) -> None:
        """Drop what is known of a node's outputs, and asked for it: it is inferred again."""
        self.nested.pop(node, None)
        for value in node.outputs:
            self._known.pop(value, None)

    def dims(self, value: Value | None) -> tuple[Dim, ...] | None:
        """The elements, flat."""
        elements = self.get(value)
        return None if elements is None else tuple(elements.ravel().tolist())

    def number(self, value: Value | None) -> int | None:
        """The only element, where there is one and it is no symbol."""
        known = self.dims(value)
        return known[0] if known and len(known) == 1 and isinstance(known[0], int) else None

    @property
    def sources(self) -> dict[str, str]:
        """Where each data-dependent symbol comes from: `name#axis` or `name[element]`."""
        return {name: origin for origin, name in self._names.items()}

    def fresh(self, origin: str) -> Expr:
        """The symbol for an origin; the same origin gets the same symbol."""
        if origin not in self._names:
            prefix = "v" if origin.endswith("]") else "u"
            index = 0
            while f"{prefix}{index}" in self._taken:
                index += 1
            name = f"{prefix}{index}"
            self._taken.add(name)
            self._names[origin] = name
            self._metadata[_PREFIX + name] = origin
        self._granted.add(origin)
        return Sym(self._names[origin])

    def settle(self, kept: Iterable[str]) -> None:
        """Forget the symbols that this inference neither gave nor must keep."""
        wanted = set(kept)
        for origin, name in list(self._names.items()):
            if origin not in self._granted and name not in wanted:
                del self._names[origin], self._metadata[_PREFIX + name]

    def bind(self, value: Value | None) -> tuple[Dim, ...] | None:
        """The elements of a short integer vector or scalar; symbols stand for unknown ones."""
        known = self.dims(value)
        if known is not None or value is None or not isinstance(value.type, TensorType):
            return known
        shape = value.type.shape
        if shape is None or len(shape) > 1 or not value.type.dtype.is_int:
            return None
        length = shape[0] if shape else 1
        if not isinstance(length, int) or length > 16:
            return None
        elements = np.array([self.fresh(f"{value.name}[{i}]") for i in range(length)], object)
        self.set(value, elements.reshape(() if not shape else (length,)))
        return self.dims(value)


def origins(metadata: dict[str, str]) -> dict[str, str]:
    """The data-dependent symbols of a graph and where they come from, out of its metadata."""
    return {
        key.removeprefix(_PREFIX): origin
        for key, origin in metadata.items()
        if key.startswith(_PREFIX)
    }


def as_dims(array: Array) -> Array | None:
    """A small array of whole numbers as dims; None for anything else."""
    if array.size > MOST_ELEMENTS:
        return None
    dtype = DType.of(array.dtype)
    if dtype.is_int or dtype is DType.BOOL:
        return _objects([int(item) for item in array.ravel()], array.shape)
    if dtype.is_float:
        items = [_exact(float(item)) for item in array.ravel()]
        return None if None in items else _objects(items, array.shape)
    return None


def _exact(item: float) -> Number | None:
    """A float as a dim or a short fraction; long ones would not round as floats do."""
    if not math.isfinite(item):
        return None
    top, bottom = item.as_integer_ratio()
    return quotient(top, bottom) if bottom <= _LARGEST_DENOMINATOR else None


def _objects(items: Sequence[object], shape: tuple[int, ...]) -> Array:
    elements = np.empty(len(items), object)
    elements[:] = items
    return elements.reshape(shape)


def concrete(elements: Array, dtype: DType) -> Array | None:
    """Elements that are all numbers, as an array of their real type."""
    if any(map(is_symbolic, elements.ravel())):
        return None
    return elements.astype(dtype.numpy)


def symbols_in(dims: Iterable[object]) -> set[str]:
    """The names of all symbols in dims."""
    dims = tuple(dims)
    # Attributes may be lists of a million numbers: their types are looked at first, in C.
    if not any(issubclass(kind, Expr) for kind in set(map(type, dims))):
        return set()
    return {name for dim in dims if isinstance(dim, Expr) for name in symbols_of(dim)}


def symbols_of_attributes(graph: Graph) -> set[str]:
    """The names of all symbols among the attributes of nodes, nested ones too."""
    attrs = (attr for node in graph.walk() for attr in node.attrs.values())
    dims = (attr if isinstance(attr, tuple) else (attr,) for attr in attrs)
    return {name for each in dims for name in symbols_in(each)}

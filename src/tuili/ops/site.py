"""Site: a node as its shape rule sees it: types, attributes, known contents, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from tuili.errors import InvalidModel
from tuili.ir import Graph, Node, SequenceType, TensorType, Value, ValueType
from tuili.ops.bounds import bounds, compare, is_equal_unless_empty, simpler
from tuili.ops.contents import Contents
from tuili.ops.op import Op
from tuili.ops.requirements import Requirement
from tuili.tensors import (
    Array,
    Dim,
    DType,
    Expr,
    Shape,
    broadcast_dim,
    dim_max,
    dim_min,
    floor_mod,
    shape_text,
)


class UnknownRank(Exception):
    """A shape rule asked for a shape that is not known; the outputs' shapes stay open."""


def _merged(left: Dim, right: Dim) -> Dim | None:
    if left not in (1, right) and right != 1:
        # Both are sizes of tensors, hence not negative: max(a, 0) is a.
        clamped = left == dim_max(right, 0) or right == dim_max(left, 0)
        if clamped or is_equal_unless_empty(left, right):
            return simpler(left, right)
        if (lone := _lone(left, right)) is not None:
            return left if lone is right else right
    return broadcast_dim(left, right)


def _lone(left: Dim, right: Dim) -> Dim | None:
    """Of two dims that broadcast, an open one that is 1 at most: the other one decides."""
    opens = (dim for dim in (right, left) if isinstance(dim, Expr))
    return next((dim for dim in opens if bounds(dim)[1] <= 1), None)


class Site:
    """One node during inference."""

    def __init__(
        self,
        node: Node,
        op: Op,
        contents: Contents,
        infer_graph: Callable[[Graph, Contents], None],
    ) -> None:
        self.node = node
        self.op = op
        self.contents = contents
        self.infer_graph = infer_graph
        self.num_outputs = len(node.outputs)

    # -- inputs ----------------------------------------------------------------------------

    @property
    def num_inputs(self) -> int:
        """How many inputs belong to the operator itself."""
        if self.op.inputs and self.op.inputs[-1].variadic:
            return len(self.node.inputs)
        return min(len(self.node.inputs), self.op.own_slots)

    def has(self, index: int) -> bool:
        """Whether the input is given."""
        return index < self.num_inputs and self.node.input(index) is not None

    def value(self, index: int) -> Value:
        """The input's value."""
        return self.node.required(index)

    def type(self, index: int) -> ValueType:
        """The input's type."""
        found = self.value(index).type
        if found is None:
            raise UnknownRank
        return found

    def tensor(self, index: int) -> TensorType:
        """The type of an input that must be a tensor."""
        found = self.type(index)
        if not isinstance(found, TensorType):
            self.fail(f"input {index} has type {found}; expected a tensor")
        return found

    def sequence(self, index: int) -> SequenceType:
        """The type of an input that must be a sequence."""
        found = self.type(index)
        if not isinstance(found, SequenceType):
            self.fail(f"input {index} has type {found}; expected a sequence")
        return found

    def dtype(self, index: int = 0) -> DType:
        """The element type of an input."""
        return self.tensor(index).dtype

    def shape(self, index: int = 0) -> Shape:
        """The shape of an input; leaves the rule when its rank is unknown."""
        found = self.tensor(index).shape
        if found is None:
            raise UnknownRank
        return found

    def rank(self, index: int = 0) -> int:
        """The rank of an input."""
        return len(self.shape(index))

    def attr(self, name: str) -> Any:
        """An attribute, or its default."""
        return self.node.attrs.get(name, self.op.attrs.get(name))

    # -- contents --------------------------------------------------------------------------

    def known(self, index: int) -> Array | None:
        """The known elements of an input."""
        return self.contents.get(self.node.input(index)) if self.has(index) else None

    def dims(self, index: int) -> tuple[Dim, ...] | None:
        """The elements of a short integer input; unknown ones get a symbol."""
        return self.contents.bind(self.node.input(index)) if self.has(index) else None

    def ints(self, index: int) -> tuple[int, ...] | None:
        """The elements of an input that must be known numbers."""
        known = self.contents.dims(self.node.input(index)) if self.has(index) else None
        if known is None or any(isinstance(dim, Expr) for dim in known):
            return None
        return tuple(int(dim) for dim in known if not isinstance(dim, Expr))

    def number(self, index: int) -> int | None:
        """The one element of an input, when it is a known number."""
        found = self.ints(index)
        return found[0] if found is not None and len(found) == 1 else None

    def array(self, index: int) -> Array | None:
        """The array of a constant input."""
        return self.value(index).constant if self.has(index) else None

    def know(self, elements: Sequence[Dim] | Array, output: int = 0) -> None:
        """Record the elements of an output."""
        if output < self.num_outputs:
            array = elements if isinstance(elements, np.ndarray) else np.array([*elements], object)
            self.contents.set(self.node.outputs[output], array)

    # -- results ---------------------------------------------------------------------------

    def fresh(self, axis: int, output: int = 0) -> Dim:
        """A symbol for an axis of an output whose size depends on data."""
        if output >= self.num_outputs:
            return 0
        return self.contents.fresh(f"{self.node.outputs[output].name}#{axis}")

    def open(self, rank: int, output: int = 0) -> list[Dim]:
        """A shape of known rank whose sizes all depend on data."""
        return [self.fresh(axis, output) for axis in range(rank)]

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front; a clear error when it is out of range."""
        if not -rank <= axis < max(rank, 1):
            self.fail(f"axis {axis} is out of range for rank {rank}; expected {-rank}..{rank - 1}")
        return axis % rank if rank else 0

    def axes(self, axes: Iterable[int], rank: int) -> tuple[int, ...]:
        """Axes counted from the front, each once."""
        found = tuple(self.axis(int(axis), rank) for axis in axes)
        if len(set(found)) != len(found):
            self.fail(f"axes {list(found)} name one axis twice; name each once")
        return found

    def broadcast(self, *shapes: Sequence[Dim]) -> list[Dim]:
        """The NumPy broadcast of shapes."""
        rank = max(map(len, shapes), default=0)
        result: list[Dim] = [1] * rank
        for shape in shapes:
            for axis, dim in enumerate(shape, rank - len(shape)):
                merged = _merged(result[axis], dim)
                if merged is None:
                    texts = " and ".join(shape_text(each) for each in shapes)
                    self.fail(
                        f"shapes {texts} do not broadcast ({result[axis]} against {dim});"
                        " sizes must be equal or 1"
                    )
                self._fit(result[axis], dim)
                result[axis] = merged
        return result

    def _fit(self, left: Dim, right: Dim) -> None:
        """Two dims of which one may be 1: nothing goes with nothing, or with one."""
        what = "sizes that broadcast together"
        if left == 0 or right == 0:
            self.at_least(1, right if left == 0 else left, what)
        elif 1 not in (left, right) and (lone := _lone(left, right)) is not None:
            # PyTorch writes index_add with `x[:1]`, whose size is 0 only where x is empty.
            self.at_least(lone, dim_min(left if lone is right else right, 1), what)
        else:
            self._note(left, right, what, or_one=True)

    def same(self, left: Dim, right: Dim, what: str) -> Dim:
        """One of two dims that must be equal; an error when they are known to differ."""
        if isinstance(left, int) and isinstance(right, int) and left != right:
            shapes = ", ".join(str(value.type) for value in self.node.inputs if value is not None)
            self.fail(f"{what}: {left} against {right} (inputs: {shapes}); they must be equal")
        self._note(left, right, what)
        return simpler(left, right)

    def same_shape(self, left: Sequence[Dim], right: Sequence[Dim], what: str) -> Shape:
        """One of two shapes that must be equal."""
        if len(left) != len(right):
            self.fail(
                f"{what}: {shape_text(left)} against {shape_text(right)}; expected equal ones"
            )
        return tuple(self.same(a, b, what) for a, b in zip(left, right, strict=True))

    def broadcasts_to(self, shape: Sequence[Dim], target: Sequence[Dim], what: str) -> None:
        """Refuse a shape that does not broadcast to another one."""
        self.same_shape(self.broadcast(target, shape), target, what)

    def divides(self, by: int, dim: Dim, what: str) -> None:
        """Refuse a size that is no multiple of a number."""
        if isinstance(dim, int) and dim % by:
            self.fail(f"{what} is {dim}; expected a multiple of {by}")
        self._note(floor_mod(dim, by), 0, f"{what} against multiples of {by}")

    def at_least(self, dim: Dim, least: Dim, what: str) -> None:
        """Refuse a size below another, here or, where only the run knows it, there."""
        room = dim - least
        if isinstance(room, int) and room < 0:
            self.fail(f"{what}: {dim} against {least}; the first must not be smaller")
        if isinstance(room, Expr) and bounds(room)[0] < 0:
            self.contents.require(
                self.node, Requirement(self.node.label, dim, least, what, or_more=True)
            )

    def not_negative(self, dim: Dim, what: str) -> None:
        """Refuse a negative size, here or, where only the run knows it, there."""
        if isinstance(dim, int) and dim < 0:
            self.fail(f"{what} is {dim}; sizes must not be negative")
        self.at_least(dim, 0, f"{what} must not be negative")

    def within(self, index: int, shape: Sequence[Dim], what: str) -> None:
        """The input broadcasts into a shape, without making it larger."""
        own = self.shape(index)
        if len(own) > len(shape):
            self.fail(
                f"{what}: input {index} has shape {shape_text(own)}; expected at most rank"
                f" {len(shape)}, to fit into {shape_text(shape)}"
            )
        for dim, whole in zip(reversed(own), reversed(shape), strict=False):
            if dim != 1:
                self.same(dim, whole, what)

    def _note(self, left: Dim, right: Dim, what: str, *, or_one: bool = False) -> None:
        """Let the run check what is not known now."""
        open_ = isinstance(left, Expr) or isinstance(right, Expr)
        known = compare(left, right) == 0 or (or_one and 1 in (left, right))
        if open_ and not known and not is_equal_unless_empty(left, right):
            self.contents.require(
                self.node, Requirement(self.node.label, left, right, what, or_one)
            )

    def need_rank(self, index: int, *ranks: int) -> Shape:
        """The shape of an input that must have one of some ranks."""
        shape = self.shape(index)
        if len(shape) not in ranks:
            wanted = " or ".join(map(str, ranks))
            self.fail(f"input {index} has shape {shape_text(shape)}; expected rank {wanted}")
        return shape

    def body(self, graph: Graph, inputs: Sequence[ValueType | None]) -> list[ValueType | None]:
        """Infer a nested graph for given input types; the types of its outputs."""
        if len(inputs) != len(graph.inputs):
            self.fail(
                f"graph {graph.name!r} takes {len(graph.inputs)} inputs; {len(inputs)} are given"
            )
        for value, type_ in zip(graph.inputs, inputs, strict=True):
            value.type = value.type if type_ is None else type_
        self.infer_graph(graph, self.contents)
        return [value.type for value in graph.outputs]

    def fail(self, message: str) -> NoReturn:
        """Raise InvalidModel naming the node."""
        raise InvalidModel(f"{self.node.label}: {message}")

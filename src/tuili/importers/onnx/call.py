"""Call: one node on its way into the graph, as converters of old operator sets see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from onnx import AttributeProto, NodeProto

from tuili.errors import InvalidModel
from tuili.ir import Attr, Graph, TensorType, Value
from tuili.tensors import Array, DType, Shape


@dataclass(slots=True)
class Call:
    """An operator applied to values; converters change it in place or build its results."""

    graph: Graph
    op: str
    inputs: list[Value | None]
    attrs: dict[str, Attr]
    outputs: list[str]
    name: str
    opset: int
    infer: Callable[[], None]  # fills the types of what is in the graph so far
    proto: NodeProto
    bound: Mapping[str, AttributeProto] = field(default_factory=dict[str, AttributeProto])

    @property
    def label(self) -> str:
        """The node as errors name it."""
        return f"{self.op} node {self.name or ', '.join(filter(None, self.outputs))!r}"

    def fail(self, message: str) -> NoReturn:
        """Raise InvalidModel naming the node."""
        raise InvalidModel(f"{self.label}: {message}")

    def input(self, index: int) -> Value:
        """An input that must be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            self.fail(f"input {index} is missing; the operator requires it")
        return value

    def take(self, name: str, default: Any = None) -> Any:
        """An attribute, removed."""
        return self.attrs.pop(name, default)

    def drop(self, *names: str) -> None:
        """Remove attributes that mean nothing any more."""
        for name in names:
            self.attrs.pop(name, None)

    def set_input(self, index: int, value: Value | None) -> None:
        """Give an input, with the ones before it left out where they are not there yet."""
        self.inputs += [None] * (index + 1 - len(self.inputs))
        self.inputs[index] = value

    def constant(self, array: Array, hint: str) -> Value:
        """A new constant, named after the node."""
        return self.graph.add_constant(array, f"{self.title}.{hint}")

    def ints(self, numbers: Sequence[int], hint: str) -> Value:
        """A new constant vector of i64."""
        return self.constant(np.array([*numbers], np.int64), hint)

    @property
    def title(self) -> str:
        """What names of values made for this node start with."""
        return next(filter(None, self.outputs), self.op.lower())

    def add(
        self, op: str, inputs: Sequence[Value | None], attrs: Mapping[str, Attr] | None = None
    ) -> Value:
        """A node beside this one; its output."""
        return self.graph.add(op, inputs, attrs, outputs=[f"{self.title}.{op.lower()}"]).output

    def given(self, index: int) -> Value | None:
        """An optional input; None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def wants(self, index: int) -> bool:
        """Whether an output has a name."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def plus(self, value: Value, index: int) -> Value:
        """The value, plus an input where it is given."""
        term = self.given(index)
        return value if term is None else self.add("Add", [value, term])

    def finish(
        self, op: str, inputs: Sequence[Value | None], attrs: Mapping[str, Attr] | None = None
    ) -> Sequence[Value]:
        """The node that stands for this one, with its name and its first output."""
        return self.graph.add(op, inputs, attrs, outputs=self.outputs[:1], name=self.name).outputs

    def number(self, number: float, hint: str) -> Value:
        """A scalar constant in the element type of the first input."""
        first = self.input(0)
        if not isinstance(first.type, TensorType):
            self.infer()
        dtype = first.type.dtype if isinstance(first.type, TensorType) else DType.F32
        return self.constant(np.array(number).astype(dtype.numpy), hint)

    def tensor(self, value: Value) -> TensorType | None:
        """The type of a value as far as it is known; None when even its rank is not."""
        if not isinstance(value.type, TensorType) or value.type.shape is None:
            self.infer()
        found = value.type
        return found if isinstance(found, TensorType) and found.shape is not None else None

    def shape(self, value: Value) -> Shape | None:
        """The shape of a value, with open dims; None when its rank is not known."""
        found = self.tensor(value)
        return None if found is None else found.shape

    def rank(self, index: int) -> int:
        """The rank of an input; raises InvalidModel when it cannot be known."""
        shape = self.shape(self.input(index))
        if shape is None:
            self.fail(
                f"the rank of input {index} must be known to read this operator of operator set"
                f" {self.opset}; export the model with operator set 13 or newer"
            )
        return len(shape)


Results = Sequence[Value]

# An operator, its inputs and its attributes: what `Call.add` and `Call.finish` take.
Step = tuple[str, Sequence[Value | None], Mapping[str, Attr]]

# None: the call, changed in place or not, becomes a node.
Converter = Callable[[Call], "Results | None"]

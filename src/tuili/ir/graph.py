"""The graph: values, nodes and nested graphs, edited only by methods that keep uses right.

Rules
1. A value has one definition: a graph input, a constant, or an output of one node.
2. `value.uses` lists every (node, slot) and (graph, output slot) that reads it, in nested graphs
   too; only `Node.set_input`, `Graph.set_outputs`, `Graph.append/insert/remove` change it.
3. `graph.nodes` is in topological order after an importer or a pass returns.
4. A nested graph (attribute of `If`, `Loop`, `Scan`, ...) may read values of the graphs around it.
5. Names of values are unique within a graph, together with what it reads from around it.
This module knows no operator and no file format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from tuili.errors import InternalError, InvalidModel
from tuili.ir.types import TensorType, ValueType
from tuili.tensors import Array, DType, Expr, Shape

Attr: TypeAlias = "int | float | str | Expr | DType | Array | Graph | tuple[Attr, ...]"
Use: TypeAlias = "tuple[Node | Graph, int]"


class Value:
    """One SSA value: a name, a type once known, its producer and its uses."""

    __slots__ = ("constant", "name", "producer", "type", "uses")

    def __init__(self, name: str, type: ValueType | None = None) -> None:  # noqa: A002 - the field's word
        self.name = name
        self.type = type
        self.producer: Node | None = None
        self.constant: Array | None = None
        self.uses: list[Use] = []

    def __repr__(self) -> str:
        return f"%{self.name}" + (f": {self.type}" if self.type else "")

    @property
    def tensor(self) -> TensorType:
        """The type, for a value that must be a tensor of known element type."""
        if not isinstance(self.type, TensorType):
            raise InternalError(f"value {self.name!r} has type {self.type}, a tensor was expected")
        return self.type

    @property
    def dtype(self) -> DType:
        """The element type of a tensor value."""
        return self.tensor.dtype

    @property
    def shape(self) -> Shape:
        """The shape of a tensor value whose rank is known."""
        shape = self.tensor.shape
        if shape is None:
            raise InternalError(f"the shape of value {self.name!r} is not known yet")
        return shape

    @property
    def layout(self) -> str:
        """The physical layout of a tensor value; "" is row-major."""
        return self.tensor.layout

    @property
    def is_object(self) -> bool:
        """Whether native code sees a handle in its place: all but numbers of known rank."""
        type_ = self.type
        if not isinstance(type_, TensorType) or type_.shape is None:
            return True
        return type_.dtype is DType.STR

    @property
    def is_constant(self) -> bool:
        """Whether the contents are known."""
        return self.constant is not None

    @property
    def users(self) -> list[Node]:
        """The nodes that read the value, each once, in order of use."""
        return list(dict.fromkeys(user for user, _ in self.uses if isinstance(user, Node)))

    @property
    def is_output(self) -> bool:
        """Whether some graph returns the value."""
        return any(isinstance(user, Graph) for user, _ in self.uses)


class Node:
    """One operation: `outputs = op(inputs) {attrs}`."""

    __slots__ = ("_inputs", "attrs", "graph", "name", "op", "outputs")

    def __init__(self, op: str, attrs: Mapping[str, Attr] | None = None, name: str = "") -> None:
        self.op = op
        self.name = name
        self.attrs: dict[str, Attr] = dict(attrs or {})
        self.outputs: tuple[Value, ...] = ()
        self.graph: Graph | None = None
        self._inputs: tuple[Value | None, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.label}>"

    @property
    def label(self) -> str:
        """The node as errors name it: `Conv node 'conv1'`."""
        name = self.name or (self.outputs[0].name if self.outputs else "")
        return f"{self.op} node {name!r}"

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        """The values read; None stands for an optional input left out."""
        return self._inputs

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int) -> Value | None:
        """The input at `index`, None when left out or beyond the end."""
        return self._inputs[index] if index < len(self._inputs) else None

    def required(self, index: int) -> Value:
        """The input at `index`; raises InvalidModel when it is left out."""
        value = self.input(index)
        if value is None:
            raise InvalidModel(f"{self.label}: input {index} is missing; the operator requires it")
        return value

    def set_inputs(self, values: Sequence[Value | None]) -> None:
        """Replace all inputs."""
        for slot, value in enumerate(self._inputs):
            if value is not None:
                value.uses.remove((self, slot))
        self._inputs = tuple(values)
        for slot, value in enumerate(self._inputs):
            if value is not None:
                value.uses.append((self, slot))

    def set_input(self, index: int, value: Value | None) -> None:
        """Replace one input."""
        before = self._inputs[index]
        if before is not None:
            before.uses.remove((self, index))
        self._inputs = (*self._inputs[:index], value, *self._inputs[index + 1 :])
        if value is not None:
            value.uses.append((self, index))

    def graphs(self) -> list[Graph]:
        """The nested graphs among the attributes."""
        return [attr for attr in self.attrs.values() if isinstance(attr, Graph)]


class Graph:
    """Inputs, constants, ordered nodes and outputs."""

    def __init__(self, name: str = "main", outer: Graph | None = None) -> None:
        """An empty graph; one nested in `outer` shares its names, so that none clashes later."""
        self.name = name
        self.inputs: list[Value] = []
        self.constants: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.metadata: dict[str, str] = {}
        self._outputs: tuple[Value, ...] = ()
        self._names: set[str] = set() if outer is None else outer._names  # noqa: SLF001
        self._next: dict[str, int] = {} if outer is None else outer._next  # noqa: SLF001

    def __repr__(self) -> str:
        return f"<graph {self.name!r}: {len(self.nodes)} nodes>"

    # -- names -----------------------------------------------------------------------------

    def claim(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, ... when it is taken in this graph."""
        fresh = name
        while fresh in self._names:
            self._next[name] = self._next.get(name, 0) + 1
            fresh = f"{name}_{self._next[name]}"
        self._names.add(fresh)
        return fresh

    # -- definitions -----------------------------------------------------------------------

    def add_input(self, name: str, type: ValueType | None = None) -> Value:  # noqa: A002
        """A new graph input."""
        value = Value(self.claim(name), type)
        self.inputs.append(value)
        return value

    def add_constant(self, array: Array, name: str = "const") -> Value:
        """A new constant; its type comes from the array."""
        value = Value(self.claim(name), TensorType(DType.of(array.dtype), array.shape))
        value.constant = array
        self.constants[value.name] = value
        return value

    def add(  # noqa: PLR0913 - a node has that many parts
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Attr] | None = None,
        *,
        outputs: Sequence[str] = ("",),
        types: Sequence[ValueType | None] = (),
        name: str = "",
        before: Node | None = None,
        after: Node | None = None,
    ) -> Node:
        """A new node at the end, or beside `before`/`after`; output names are made unique."""
        node = Node(op, attrs, name)
        made: list[Value] = []
        for index, wanted in enumerate(outputs):
            value = Value(self.claim(wanted or (name or op.lower())))
            value.producer = node
            value.type = types[index] if index < len(types) else None
            made.append(value)
        node.outputs = tuple(made)
        node.set_inputs(inputs)
        self._place(node, before, after)
        return node

    def _place(self, node: Node, before: Node | None, after: Node | None) -> None:
        node.graph = self
        if before is not None:
            self.nodes.insert(self.nodes.index(before), node)
        elif after is not None:
            self.nodes.insert(self.nodes.index(after) + 1, node)
        else:
            self.nodes.append(node)

    # -- edits -----------------------------------------------------------------------------

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The values that the graph returns."""
        return self._outputs

    def set_outputs(self, values: Iterable[Value]) -> None:
        """Replace the returned values."""
        for slot, value in enumerate(self._outputs):
            value.uses.remove((self, slot))
        self._outputs = tuple(values)
        for slot, value in enumerate(self._outputs):
            value.uses.append((self, slot))

    def replace_uses(self, old: Value, new: Value) -> None:
        """Make every reader of `old`, in nested graphs too, read `new` instead."""
        if old is new:
            return
        for user, slot in list(old.uses):
            if isinstance(user, Node):
                user.set_input(slot, new)
            else:
                user.set_outputs([new if value is old else value for value in user.outputs])

    def rename(self, value: Value, name: str) -> None:
        """Give a value of this graph another name."""
        self._names.discard(value.name)
        if value.name in self.constants:
            del self.constants[value.name]
            value.name = self.claim(name)
            self.constants[value.name] = value
        else:
            value.name = self.claim(name)

    def remove(self, nodes: Node | Iterable[Node]) -> None:
        """Remove nodes whose outputs nobody outside the removed set reads."""
        doomed = {nodes} if isinstance(nodes, Node) else set(nodes)
        inside = doomed | {inner for node in doomed for inner in _nested_nodes(node)}
        for node in doomed:
            for value in node.outputs:
                readers = [user for user, _ in value.uses if user not in inside]
                if readers:
                    raise InternalError(
                        f"cannot remove {node.label}: {value.name!r} is read by {readers}"
                    )
        for node in doomed:
            self.detach(node)
        self.nodes = [node for node in self.nodes if node not in doomed]

    def detach(self, node: Node) -> None:
        """Cut a node that is being removed off its inputs, with everything nested in it."""
        node.set_inputs(())
        node.graph = None
        for value in node.outputs:
            self._names.discard(value.name)
        for graph in node.graphs():
            graph.set_outputs(())
            for inner in list(graph.nodes):
                graph.detach(inner)

    def remove_constant(self, value: Value) -> None:
        """Remove a constant that nobody reads."""
        if value.uses:
            raise InternalError(
                f"cannot remove constant {value.name!r}: it is read by {value.users}"
            )
        del self.constants[value.name]
        self._names.discard(value.name)

    # -- walks -----------------------------------------------------------------------------

    def walk(self) -> Iterator[Node]:
        """Every node, nested ones after their owner."""
        for node in self.nodes:
            yield node
            yield from _nested_nodes(node)

    def captured(self) -> list[Value]:
        """The values of surrounding graphs that this graph reads, in order of first use."""
        own = {id(value) for value in self.defined()}
        read = [value for node in self.walk() for value in node.inputs if value is not None]
        inner = {
            id(value)
            for node in self.walk()
            for graph in node.graphs()
            for value in graph.defined()
        }
        outer = [value for value in [*read, *self.outputs] if id(value) not in own | inner]
        return list(dict.fromkeys(outer))

    def defined(self) -> list[Value]:
        """Every value that this graph itself defines."""
        made = [value for node in self.nodes for value in node.outputs]
        return [*self.inputs, *self.constants.values(), *made]

    def sort(self) -> None:
        """Order the nodes topologically; raises InvalidModel that names a cycle."""
        waiting = {node: len(_local_producers(node, self)) for node in self.nodes}
        readers: dict[Node, list[Node]] = {}
        for node in self.nodes:
            for producer in _local_producers(node, self):
                readers.setdefault(producer, []).append(node)
        if _is_ordered(self):
            return
        ready = [node for node in self.nodes if waiting[node] == 0]
        ordered: list[Node] = []
        for node in ready:
            ordered.append(node)
            for reader in readers.get(node, ()):
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
        if len(ordered) < len(self.nodes):
            stuck = [node.label for node in self.nodes if waiting[node] > 0][:5]
            raise InvalidModel(
                f"graph {self.name!r} has a cycle through {', '.join(stuck)}; "
                "a graph must be acyclic"
            )
        self.nodes = ordered


def _nested_nodes(node: Node) -> Iterator[Node]:
    for graph in node.graphs():
        yield from graph.walk()


def reads(node: Node) -> list[Value]:
    """Everything a node needs: its inputs and what its nested graphs capture."""
    direct = [value for value in node.inputs if value is not None]
    return [*direct, *(value for graph in node.graphs() for value in graph.captured())]


def _local_producers(node: Node, graph: Graph) -> set[Node]:
    producers = (value.producer for value in reads(node))
    return {producer for producer in producers if producer is not None and producer.graph is graph}


def _is_ordered(graph: Graph) -> bool:
    seen: set[Node] = set()
    for node in graph.nodes:
        if any(producer not in seen for producer in _local_producers(node, graph)):
            return False
        seen.add(node)
    return True

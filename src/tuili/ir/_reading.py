"""Reader: text to graph by recursive descent; see text.py for the grammar."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import numpy as np

from tuili.errors import ParseError
from tuili.ir._tokens import Cursor, Token
from tuili.ir.graph import Attr, Graph, Value
from tuili.ir.types import MapType, OptionalType, SequenceType, TensorType, ValueType
from tuili.tensors import Array, Dim, DType, Expr, parse_dim

T = TypeVar("T")
_DTYPES = {kind.value: kind for kind in DType}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
Scope: TypeAlias = "ChainMap[str, Value]"


class Reader(Cursor):
    """Reads one graph; nested graphs see the values of the graphs around them."""

    def __init__(self, text: str, weights: Mapping[str, Array]) -> None:
        super().__init__(text)
        self._weights = weights

    def read(self) -> Graph:
        """The graph, which must be the whole text."""
        try:
            graph = self._graph(ChainMap(), None)
        except RecursionError:
            self.fail("brackets are nested too deeply")
        if self.token.kind != "end":
            self.fail(f"expected the end of the text, found {self.token.text!r}")
        return graph

    # -- graphs ----------------------------------------------------------------------------

    def _graph(self, outer: Scope, around: Graph | None) -> Graph:
        self.expect("graph")
        graph = Graph(self._name("the graph's name"), around)
        # Own names hide those of the graphs around.
        scope: Scope = ChainMap({}, *outer.maps)
        self.expect("(")
        for token, type_ in self._list(")", self._definition):
            self._define(scope, token, graph.add_input(token.content, type_))
        self.expect("{")
        while not self.found("return"):
            self._line(graph, scope)
        graph.set_outputs(self._returned(scope))
        self.expect("}")
        return graph

    def _returned(self, scope: Scope) -> list[Value]:
        values: list[Value] = []
        while self.token.kind == "value":
            values.append(self._known(scope, self.take()))
            if not self.found(","):
                break
        return values

    def _line(self, graph: Graph, scope: Scope) -> None:
        if self.found("metadata"):
            key = self.content("string", "a key in quotes")
            self.expect("=")
            graph.metadata[key] = self.content("string", "a text in quotes")
            return
        outputs = self._outputs()
        if len(outputs) == 1 and self.found("constant"):
            token = outputs[0][0]
            array, type_ = self._array()
            value = graph.add_constant(array, token.content)
            del graph.constants[value.name]
            value.type = type_
            self._define(scope, token, value)
            graph.constants[value.name] = value
            return
        self._node(graph, scope, outputs)

    def _outputs(self) -> list[tuple[Token, ValueType | None]]:
        outputs: list[tuple[Token, ValueType | None]] = []
        if self.token.kind != "value":
            return outputs
        outputs.append(self._definition())
        while self.found(","):
            outputs.append(self._definition())
        self.expect("=")
        return outputs

    def _node(
        self, graph: Graph, scope: Scope, outputs: list[tuple[Token, ValueType | None]]
    ) -> None:
        op = self._name("an operator, `constant`, `metadata` or `return`")
        self.expect("(")
        inputs = self._list(")", lambda: self._operand(scope))
        attrs: dict[str, Attr] = {}
        if self.found("{"):
            attrs = dict(self._list("}", lambda: self._named_attr(scope, graph)))
        name = self.content("string", "a name") if self.token.kind == "string" else ""
        node = graph.add(
            op,
            inputs,
            attrs,
            outputs=[token.content for token, _ in outputs],
            types=[type_ for _, type_ in outputs],
            name=name,
        )
        for (token, _), value in zip(outputs, node.outputs, strict=True):
            self._define(scope, token, value)

    def _define(self, scope: Scope, token: Token, value: Value) -> None:
        if token.content in scope.maps[0]:
            self.fail(f"{token.text} is defined twice", token.start)
        value.name = token.content
        scope[value.name] = value

    def _known(self, scope: Scope, token: Token) -> Value:
        if token.content not in scope:
            self.fail(f"{token.text} is not defined here or above", token.start)
        return scope[token.content]

    def _operand(self, scope: Scope) -> Value | None:
        if self.found("_"):
            return None
        return self._known(scope, self.kind("value", "a value such as %x, or _"))

    def _definition(self) -> tuple[Token, ValueType | None]:
        token = self.kind("value", "a value such as %x")
        return token, self._type() if self.found(":") else None

    # -- pieces ----------------------------------------------------------------------------

    def _name(self, what: str) -> str:
        if self.token.kind == "string":
            return self.content("string", what)
        return self.kind("name", what).text

    def _list(self, end: str, item: Callable[[], T]) -> list[T]:
        items: list[T] = []
        while not self.found(end):
            if items:
                self.expect(",")
            items.append(item())
        return items

    def _type(self) -> ValueType:
        if self.found("seq"):
            return SequenceType(self._bracketed(self._type))
        if self.found("optional"):
            return OptionalType(self._bracketed(self._type))
        if self.found("map"):
            return MapType(*self._bracketed(self._map))
        return self._tensor_type()

    def _bracketed(self, content: Callable[[], T]) -> T:
        self.expect("<")
        result = content()
        self.expect(">")
        return result

    def _map(self) -> tuple[DType, ValueType]:
        key = self._dtype()
        self.expect(",")
        return key, self._type()

    def _dtype(self) -> DType:
        if self.token.text not in _DTYPES:
            self.fail(f"expected an element type such as f32, found {self.token.text!r}")
        return _DTYPES[self.take().text]

    def _tensor_type(self) -> TensorType:
        dtype = self._dtype()
        self.expect("[")
        shape: tuple[Dim, ...] | None = None
        if self.found("*"):
            self.expect("]")
        else:
            shape = tuple(self._list("]", lambda: self._dim((",", "]"))))
        # A layout touches the bracket; a key of weights does not.
        touches = self.token.kind == "key" and self.token.start == self.tokens[self.place - 1].end
        return TensorType(dtype, shape, self.content("key", "a layout") if touches else "")

    def _dim(self, ends: tuple[str, ...]) -> Dim:
        first, last, depth = self.token, self.token, 0
        while (depth or self.token.text not in ends) and self.token.kind != "end":
            last = self.take()
            depth += (last.text in _CLOSING) - (last.text in _CLOSING.values())
        try:
            return parse_dim(self.text[first.start : last.end])
        except ParseError as error:
            reason = str(error).splitlines()[0].rpartition(": ")[2]
            self.fail(f"not a dim: {reason}", first.start)

    # -- attributes ------------------------------------------------------------------------

    def _named_attr(self, scope: Scope, graph: Graph) -> tuple[str, Attr]:
        name = self._name("an attribute's name")
        self.expect("=")
        return name, self._attr(scope, graph)

    def _attr(self, scope: Scope, graph: Graph) -> Attr:
        token = self.token
        if token.kind == "string":
            return self.content("string", "a text")
        if token.kind == "number" or token.text in ("inf", "nan"):
            return _number(self.take().text)
        if self.found("["):
            return tuple(self._list("]", lambda: self._attr(scope, graph)))
        if token.text == "graph":
            return self._graph(scope, graph)
        if self.found("dim"):
            return self._dim_attr()
        following = self.tokens[self.place + 1 : self.place + 2]
        if token.text in _DTYPES and not (following and following[0].text == "["):
            return self._dtype()
        return self._array()[0]

    def _dim_attr(self) -> Dim:
        self.expect("(")
        start = self.token.start
        dim = self._dim((")",))
        self.expect(")")
        if not isinstance(dim, Expr):
            self.fail("expected a symbolic dim; write a known one as a plain number", start)
        return dim

    def _array(self) -> tuple[Array, TensorType]:
        start = self.token.start
        type_ = self._tensor_type()
        shape = tuple(dim for dim in type_.shape or () if isinstance(dim, int))
        if type_.shape is None or len(shape) < len(type_.shape):
            self.fail(f"a constant needs a known shape, found {type_}", start)
        if self.token.kind == "key":
            return self._kept(type_, shape), type_
        self.expect("[")
        return self._contents(type_.dtype, shape, self._list("]", self.take), start), type_

    def _kept(self, type_: TensorType, shape: tuple[int, ...]) -> Array:
        start = self.token.start
        key = self.content("key", "a key")
        if key not in self._weights:
            self.fail(f"the contents of @{key} are not among the weights given", start)
        array = self._weights[key]
        if array.shape != shape or DType.of(array.dtype) is not type_.dtype:
            found = TensorType(DType.of(array.dtype), array.shape)
            self.fail(f"@{key} is declared {type_} but its contents are {found}", start)
        return array

    def _contents(
        self, dtype: DType, shape: tuple[int, ...], tokens: list[Token], start: int
    ) -> Array:
        complex_parts = {DType.C64: np.float32, DType.C128: np.float64}
        count = int(np.prod(shape)) * (2 if dtype in complex_parts else 1)
        if len(tokens) != count:
            self.fail(
                f"{dtype.value}{list(shape)} needs {count} elements, found {len(tokens)}", start
            )
        for token in tokens:
            if not _is_element(token, dtype):
                self.fail(f"{token.text!r} is not an element of type {dtype.value}", token.start)
        if dtype is DType.STR:
            array = np.empty(count, object)
            array[:] = [token.content for token in tokens]
            return array.reshape(shape)
        numbers = [_number(token.text) for token in tokens]
        try:
            if dtype in complex_parts:
                return np.array(numbers, complex_parts[dtype]).view(dtype.numpy).reshape(shape)
            if dtype.is_float:
                return np.array(numbers, np.float64).astype(dtype.numpy).reshape(shape)
            return np.array(numbers, dtype.numpy).reshape(shape)
        except (OverflowError, ValueError) as error:
            self.fail(f"an element does not fit {dtype.value} ({error})", start)


def _is_element(token: Token, dtype: DType) -> bool:
    if dtype is DType.STR:
        return token.kind == "string"
    if dtype.is_int or dtype is DType.BOOL:
        return token.kind == "number" and isinstance(_number(token.text), int)
    return token.kind == "number" or token.text in ("inf", "nan")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)

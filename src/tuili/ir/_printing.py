"""Printer: a graph as text; see text.py for the grammar."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from tuili.errors import InternalError
from tuili.ir.graph import Attr, Graph, Node, Value
from tuili.ir.types import TensorType
from tuili.tensors import Array, DType, Expr

WORD = r"[A-Za-z0-9_./\-]+"
NAME = r"[A-Za-z_][A-Za-z0-9_.]*(?:::[A-Za-z0-9_.]+)*"

# Arrays of more elements are named in the text and kept beside it.
INLINE_ELEMENTS = 64


def word(text: str, pattern: str = WORD) -> str:
    """The text itself when it is a plain word, else quoted."""
    return text if re.fullmatch(pattern, text) else json.dumps(text)


def float_text(number: float) -> str:
    """The shortest text that reads back as the same f64; always looks like a float."""
    return repr(float(number))


def _element(item: Any) -> str:
    """One element of an array: the shortest text that reads back equal in the element type."""
    if isinstance(item, str):
        return json.dumps(item)
    if isinstance(item, np.floating):
        short = str(item)
        return short if type(item)(float(short)) == item else float_text(float(item))
    return float_text(float(item))


def elements(array: Array) -> list[str]:
    """The elements of an array, flat; a complex number is two."""
    dtype = DType.of(array.dtype)
    flat = array.ravel()
    if dtype is DType.STR:
        return [_element(item if isinstance(item, str) else str(item)) for item in flat]
    if dtype in (DType.C64, DType.C128):
        return elements(flat.view(np.float32 if dtype is DType.C64 else np.float64))
    if dtype.is_float:
        return [_element(item) for item in flat]
    return [str(int(item)) for item in flat]


class Printer:
    """Prints one graph; large arrays go to `weights` under unique keys."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights

    def graph(self, graph: Graph, indent: str = "") -> str:
        """A graph, its first line not indented."""
        inputs = ", ".join(map(_definition, graph.inputs))
        lines = [f"graph {word(graph.name, NAME)}({inputs}) {{"]
        inner = indent + "  "
        lines += [
            f"{inner}metadata {json.dumps(key)} = {json.dumps(text)}"
            for key, text in sorted(graph.metadata.items())
        ]
        lines += [
            f"{inner}%{word(value.name)} = constant {self._constant(value)}"
            for value in graph.constants.values()
        ]
        lines += [inner + self.node(node, inner) for node in graph.nodes]
        outputs = ", ".join(map(_operand, graph.outputs))
        lines += [f"{inner}return {outputs}".rstrip(), indent + "}"]
        return "\n".join(lines)

    def _constant(self, value: Value) -> str:
        array = value.constant
        if array is None:
            raise InternalError(f"constant {value.name!r} has no contents")
        layout = f"@{value.layout}" if value.layout else ""
        return self._array(array, value.name, layout)

    def _array(self, array: Array, name: str, layout: str = "") -> str:
        type_ = f"{TensorType(DType.of(array.dtype), array.shape)}{layout}"
        if array.size > INLINE_ELEMENTS and array.dtype != object:
            return f"{type_} @{word(self._keep(array, name))}"
        return f"{type_} [{', '.join(elements(array))}]"

    def _keep(self, array: Array, name: str) -> str:
        key, number = name, 0
        while key in self._weights and self._weights[key] is not array:
            number += 1
            key = f"{name}_{number}"
        self._weights[key] = array
        return key

    def node(self, node: Node, indent: str = "") -> str:
        """One node; nested graphs are indented below `indent`."""
        outputs = ", ".join(map(_definition, node.outputs))
        inputs = ", ".join(map(_operand, node.inputs))
        attrs = ", ".join(
            f"{word(name, NAME)}={self._attr(node.attrs[name], _key(node, name), indent)}"
            for name in sorted(node.attrs)
        )
        shown = f" {{{attrs}}}" if attrs else ""
        name = f" {json.dumps(node.name)}" if node.name else ""
        equals = " = " if outputs else ""
        return f"{outputs}{equals}{word(node.op, NAME)}({inputs}){shown}{name}"

    def _attr(self, attr: Attr, key: str, indent: str) -> str:
        match attr:
            case Graph():
                return self.graph(attr, indent)
            case Expr():
                return f"dim({attr})"
            case DType():
                return attr.value
            case str():
                return json.dumps(attr)
            case tuple():
                return f"[{', '.join(self._attr(item, key, indent) for item in attr)}]"
            case np.ndarray():
                return self._array(attr, key)
            case float():
                return float_text(attr)
            case _:
                return str(int(attr))  # pyright: ignore[reportArgumentType]


def _key(node: Node, attr: str) -> str:
    return f"{node.outputs[0].name if node.outputs else node.op}.{attr}"


def _definition(value: Value) -> str:
    return f"%{word(value.name)}" + ("" if value.type is None else f": {value.type}")


def _operand(value: Value | None) -> str:
    return "_" if value is None else f"%{word(value.name)}"

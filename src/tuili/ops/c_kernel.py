"""CKernel: the C function of a plug-in operator, and how its parameters are matched by name.

    void clip(int64_t begin, int64_t end, const float *X, const int64_t *X_shape, float *Y,
              double limit)

`begin` and `end` come first: the function computes the items [begin, end), and several threads may
each take a part. What follows is in any order: an input or output by its name in the signature, its
sizes as NAME_shape, an attribute by its name, the length of a list attribute as NAME_count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from tuili.errors import InvalidArgument, nearest
from tuili.ir import Attr
from tuili.ops.op import REQUIRED, Op
from tuili.tensors import DType

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_PARAMETER = re.compile(
    r"(?P<const>const\s+)?(?P<type>\w+(?:\s+_Complex)?)\s*(?:(?P<star>\*)\s*(?:restrict\s+)?|\s)"
    r"(?P<name>\w+)"
)
_ELEMENTS = {kind.c for kind in DType if kind.c} | {"void"}
INTEGERS, REALS = ("int64_t", "int32_t", "int"), ("double", "float")
# The kind of an attribute: the C types that may hold it.
_SCALARS = {"integer": (*INTEGERS, *REALS), "number": REALS}
_LISTS = {"integer": ("int64_t", *REALS), "number": REALS}


@dataclass(frozen=True, slots=True)
class CKernel:
    """C source that defines `function`; `void`, or `int` where other than 0 fails the run.

    `items` counts leading axes of the first output: their sizes, multiplied, are the number of
    items. None counts elements, 0 makes one item, for a function that cannot be split.
    """

    function: str
    source: str
    items: int | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter after `begin` and `end`."""

    name: str
    type: str
    pointer: bool
    const: bool

    def __str__(self) -> str:
        star = " *" if self.pointer else " "
        return f"{'const ' if self.const else ''}{self.type}{star}{self.name}"


def returns_status(kernel: CKernel) -> bool:
    """Whether the function says if it failed."""
    return _head(kernel)[0] == "int"


def parameters(kernel: CKernel) -> tuple[Parameter, ...]:
    """The parameters after `begin` and `end`; raises InvalidArgument for what is not understood."""
    words = [word.strip() for word in _head(kernel)[1].split(",")]
    if [re.sub(r"\s+", " ", word) for word in words[:2]] != ["int64_t begin", "int64_t end"]:
        _fail(kernel, f"starts with ({', '.join(words[:2])}); expected (int64_t begin, int64_t end")
    return tuple(_parameter(kernel, word) for word in words[2:])


def _head(kernel: CKernel) -> tuple[str, str]:
    """The type that the function returns, and the text between its parentheses."""
    text = _COMMENT.sub(" ", kernel.source)
    found = re.search(rf"\b(\w+)\s+{re.escape(kernel.function)}\s*\(([^)]*)\)\s*{{", text)
    if found is None:
        _fail(kernel, "is not defined in its source; expected `void NAME(int64_t begin, ...) {`")
    if found[1] not in ("void", "int"):
        _fail(kernel, f"returns {found[1]}; expected void, or int (0 for success)")
    return found[1], found[2]


def _parameter(kernel: CKernel, text: str) -> Parameter:
    found = _PARAMETER.fullmatch(text)
    if found is None:
        _fail(kernel, f"has the parameter {text!r}; expected `TYPE NAME` or `TYPE *NAME`")
    kind = re.sub(r"\s+", " ", found["type"])
    return Parameter(found["name"], kind, found["star"] is not None, found["const"] is not None)


def check_kernel(row: Op, kernel: CKernel) -> None:
    """Raise InvalidArgument unless every parameter is something that the operator has."""
    if any(slot.variadic for slot in (*row.inputs, *row.outputs)):
        _fail(
            kernel, f"cannot run {row.name}: it takes any number of tensors; leave the kernel out"
        )
    if kernel.items is not None and kernel.items < 0:
        _fail(kernel, f"has items={kernel.items}; expected None or a count of axes from 0")
    found = parameters(kernel)
    names = [parameter.name for parameter in found]
    for name in names:
        if names.count(name) > 1:
            _fail(kernel, f"names its parameter {name!r} twice")
    allowed = dict(_allowed(row))
    for parameter in found:
        if parameter.name not in allowed:
            hint = nearest(parameter.name, allowed)
            known = ", ".join(allowed)
            _fail(kernel, f"has the parameter {parameter.name!r}.{hint} {row.name} has {known}")
        wanted = allowed[parameter.name]
        if str(parameter) not in wanted:
            _fail(kernel, f"has the parameter `{parameter}`; expected {_one_of(wanted)}")
    for slot in row.outputs:
        if slot.name not in names:
            _fail(kernel, f"has no parameter for the output {slot.name!r}")


def _one_of(declarations: tuple[str, ...]) -> str:
    return " or ".join(f"`{each}`" for each in declarations[:4])


def _allowed(row: Op) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every name that a parameter may have, with the declarations that fit it."""
    elements = sorted(_ELEMENTS, key=lambda name: (name != "float", name))
    for slot in row.inputs:
        yield slot.name, tuple(f"const {kind} *{slot.name}" for kind in elements)
    for slot in row.outputs:
        yield slot.name, tuple(f"{kind} *{slot.name}" for kind in elements)
    for slot in (*row.inputs, *row.outputs):
        yield f"{slot.name}_shape", (f"const int64_t *{slot.name}_shape",)
    for name, default in row.attrs.items():
        yield name, _attribute(name, default)
        if isinstance(default, tuple) or default is REQUIRED or default is None:
            yield f"{name}_count", (f"int64_t {name}_count",)


def _attribute(name: str, default: object) -> tuple[str, ...]:
    if default is REQUIRED or default is None:
        kinds = ("integer", "number", "text", "integers", "numbers")
        return tuple(dict.fromkeys(text for kind in kinds for text in declarations(name, kind)))
    return declarations(name, kind_of(default))


def kind_of(value: Attr | object) -> str:
    """The kind of an attribute's value, as `declarations` knows it."""
    if isinstance(value, tuple):
        inner = {kind_of(item) for item in value}  # pyright: ignore[reportUnknownVariableType]
        if inner <= {"integer", "number"}:
            return "numbers" if "number" in inner else "integers"
        return "other"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def declarations(name: str, kind: str) -> tuple[str, ...]:
    """The C declarations that can take an attribute of a kind."""
    if kind == "text":
        return (f"const char *{name}",)
    if kind in ("integers", "numbers"):
        return tuple(f"const {element} *{name}" for element in _LISTS[kind.removesuffix("s")])
    return tuple(f"{element} {name}" for element in _SCALARS.get(kind, ()))


def _fail(kernel: CKernel, message: str) -> NoReturn:
    raise InvalidArgument(f"C kernel {kernel.function!r} {message}")

"""What a node must satisfy before its shape rule runs: arity, attributes, element types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from tuili.errors import InvalidModel, nearest
from tuili.ir import Attr, Node, TensorType, Value
from tuili.ops.choices import CHOICES, KIND_OF, RANGES
from tuili.ops.op import KINDS, REQUIRED, Op, Slot
from tuili.tensors import DType

# Attributes that passes put on any node.
COMMON_ATTRS = frozenset({"epilogue"})
# Numbers that stand for missing data, or fill in for it.
MAY_BE_NAN = frozenset(
    {"replaced_value_float", "default_float", "extrapolation_value", "constant_value"}
)

_NAMES: dict[type | None, str] = {
    bool: "a flag",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
}
_LONGEST = 40  # characters of a value in an error


class Form(Protocol):
    """What is written down of a node."""

    @property
    def label(self) -> str:
        """The node as errors name it."""
        ...

    @property
    def inputs(self) -> Sequence[Value | None]:
        """Values; None where one is left out."""
        ...

    @property
    def outputs(self) -> Sequence[object]:
        """Values, or their names."""
        ...

    @property
    def attrs(self) -> Mapping[str, Attr]:
        """What is given."""
        ...


def check(node: Node, op: Op) -> dict[str, DType]:
    """Check a node against its row; the element types of the signature's type variables."""
    check_form(node, op)
    return _bind_types(node, op)


def check_form(node: Form, op: Op) -> None:
    """Check how many inputs and outputs there are, and the attributes."""
    _check_arity(node, op)
    _check_attrs(node, op)


def _check_arity(node: Form, op: Op) -> None:
    slots = op.inputs
    variadic = bool(slots) and slots[-1].variadic
    given = len(node.inputs)
    if given > len(slots) and not variadic and "epilogue" not in node.attrs:
        names = ", ".join(slot.name for slot in slots)
        raise InvalidModel(
            f"{node.label}: {given} inputs are given; it takes {len(slots)} ({names})"
        )
    for index, slot in enumerate(slots):
        is_given = index < given and node.inputs[index] is not None
        if not slot.optional and not slot.variadic and not is_given:
            raise InvalidModel(
                f"{node.label}: input {index} ({slot.name!r}) is missing; it is required"
            )
    outputs = op.outputs
    if outputs and not outputs[0].variadic and not node.outputs:
        raise InvalidModel(f"{node.label}: no output is named; it has {len(outputs)}")
    if len(node.outputs) > len(outputs) and not (outputs and outputs[-1].variadic):
        raise InvalidModel(
            f"{node.label}: {len(node.outputs)} outputs are named; it has {len(outputs)} at most"
        )


def _check_attrs(node: Form, op: Op) -> None:
    for name in node.attrs:
        if name not in op.attrs and name not in COMMON_ATTRS:
            known = ", ".join(op.attrs) or "none"
            raise InvalidModel(
                f"{node.label}: unknown attribute {name!r}.{nearest(name, op.attrs)} Known: {known}"
            )
        value = node.attrs[name]
        words = CHOICES.get(op.name, {}).get(name)
        if words is not None and isinstance(value, str) and value not in words:
            raise InvalidModel(
                f"{node.label}: attribute {name!r} is {value!r}; expected one of {_listed(words)}"
            )
        _check_kind(node, name, value, op)
        if isinstance(value, float) and math.isnan(value) and name not in MAY_BE_NAN:
            raise InvalidModel(f"{node.label}: attribute {name!r} is NaN; expected a number")
    for slot in op.outputs:
        if slot.type.startswith("@") and not isinstance(_type_attr(node, op, slot), DType):
            found = node.attrs.get(slot.type[1:])
            raise InvalidModel(
                f"{node.label}: attribute {slot.type[1:]!r} is {found!r}; expected an element type"
            )
    for name, default in op.attrs.items():
        if default is REQUIRED and name not in node.attrs:
            raise InvalidModel(f"{node.label}: attribute {name!r} is missing; it is required")


def _check_kind(node: Form, name: str, value: object, op: Op) -> None:
    """A value is of the kind of its default; where no schema tells, of its name's."""
    default = op.attrs.get(name)
    named = KIND_OF.get(name) if op.name.startswith("com.microsoft") else None
    kind = type(default) if isinstance(default, (int, float, str, tuple)) else named
    kinds = (int, float) if kind is float else kind
    if kinds is not None and value is not None and not isinstance(value, kinds):
        raise InvalidModel(
            f"{node.label}: attribute {name!r} is {_short(value)}; expected {_NAMES[kind]}"
        )
    if name in RANGES and isinstance(value, int) and value != default:
        least, most = RANGES[name]
        if not least <= value <= most:
            raise InvalidModel(
                f"{node.label}: attribute {name!r} is {value}; expected {least} to {most}"
            )


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, (int, float, str, tuple)) else type(value).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(repr(word) for word in words if word)


def _type_attr(node: Form, op: Op, slot: Slot) -> object:
    found = node.attrs.get(slot.type[1:], op.attrs[slot.type[1:]])
    return DType.F32 if found is REQUIRED else found


def slot_at(slots: tuple[Slot, ...], index: int) -> Slot:
    """The slot of an input or output; a variadic last slot serves all that follow."""
    return slots[min(index, len(slots) - 1)]


def _bind_types(node: Node, op: Op) -> dict[str, DType]:
    bound: dict[str, DType] = {}
    own = node.inputs if op.inputs and op.inputs[-1].variadic else node.inputs[: op.own_slots]
    for index, value in enumerate(own):
        if value is None or not isinstance(value.type, TensorType):
            continue
        _bind(node, op, index, value.type.dtype, bound)
    return bound


def _bind(node: Node, op: Op, index: int, dtype: DType, bound: dict[str, DType]) -> None:
    slot = slot_at(op.inputs, index)
    if slot.type == "any":
        return
    if slot.type in KINDS:
        allowed = KINDS[slot.type]
    elif slot.type[0].isupper():
        expected = bound.setdefault(slot.type, dtype)
        allowed = KINDS[op.allow.get(slot.type, "any")]
        if expected is not dtype:
            raise InvalidModel(
                f"{node.label}: input {index} ({slot.name!r}) is {dtype.value}, but the inputs"
                f" before it make {slot.type} = {expected.value}; cast one of them"
            )
    else:
        allowed = {DType(name) for name in slot.type.split("|")}
    if dtype not in allowed:
        names = ", ".join(sorted(kind.value for kind in allowed))
        raise InvalidModel(
            f"{node.label}: input {index} ({slot.name!r}) is {dtype.value}; expected one of {names}"
        )

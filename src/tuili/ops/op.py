"""Op: one row of the operator table, and the notation of its signature.

A signature is text: `X W B?` are three inputs, the last one optional; `data*` takes any number.
A type may follow a colon: a variable (`T`, `U`, ...; equal letters are equal types, `T` when
nothing is written), an element type (`i64`), `@to` (the attribute holds it), `any` (not checked).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from tuili.ir import Attr, ValueType
from tuili.tensors import Dim, DType

if TYPE_CHECKING:
    from tuili.ops.c_kernel import CKernel
    from tuili.ops.site import Site

# What a shape rule gives for one output: a shape, a full type, or None for "not known".
Result: TypeAlias = "Sequence[Dim] | ValueType | None"
ShapeRule: TypeAlias = "Callable[[Site], list[Result]]"
Meaning: TypeAlias = Callable[..., Any]
# (inputs, attributes, element type of the first input) -> elements of each output
Symbolic: TypeAlias = Callable[["Sequence[Any]", "Mapping[str, Any]", DType], Any]


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()  # the default of an attribute that a node must have


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output of a signature."""

    name: str
    type: str = "T"
    optional: bool = False
    variadic: bool = False


def parse_signature(text: str) -> tuple[Slot, ...]:
    """The slots of a signature."""
    return tuple(map(_parse_slot, text.split()))


def _parse_slot(word: str) -> Slot:
    name, _, type_ = word.partition(":")
    optional, variadic = name.endswith("?"), name.endswith("*")
    return Slot(name.rstrip("?*"), type_ or "T", optional, variadic)


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: signature, attribute defaults, shape rule and NumPy meaning.

    `meaning(*inputs, **attrs)` returns one array or a sequence of them; nested graphs arrive as
    functions. `symbolic` is the meaning on object arrays of dims, for shape computations.
    """

    name: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    infer: ShapeRule
    meaning: Meaning
    attrs: Mapping[str, Attr | None] = field(default_factory=lambda: MappingProxyType({}))
    elementwise: bool = False
    allow: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    symbolic: Symbolic | None = None
    counts_outputs: bool = False  # the meaning also takes `count`, the number of outputs
    random: bool = False  # running it twice gives different results
    kernels: tuple[CKernel, ...] = ()  # C of a plug-in operator

    @property
    def own_slots(self) -> int:
        """How many inputs belong to the operator; an epilogue's operands come after them."""
        return len(self.inputs)


def op(
    name: str,
    inputs: str,
    outputs: str,
    infer: ShapeRule,
    meaning: Meaning,
    *,
    attrs: Mapping[str, Attr | None] | None = None,
    allow: str | Mapping[str, str] = "any",
    **options: Any,
) -> Op:
    """A row of the table; `allow` says which kinds of types `T` (or each variable) may be."""
    kinds = {"T": allow} if isinstance(allow, str) else dict(allow)
    signature = parse_signature(inputs), parse_signature(outputs)
    return Op(name, *signature, infer, meaning, attrs or {}, allow=kinds, **options)


_FLOATS = {DType.F32, DType.F64, DType.F16, DType.BF16}
_INTS = {kind for kind in DType if kind.is_int and kind.bits >= 8}
_TINY = {kind for kind in DType if kind.bits and kind.bits <= 8} - {DType.BOOL}

KINDS: dict[str, set[DType]] = {
    "any": set(DType),
    "float": _FLOATS,
    "number": _FLOATS | _INTS,
    "int": _INTS,
    "unsigned": {kind for kind in _INTS if kind.is_unsigned_int},
    "signed": _FLOATS | {kind for kind in _INTS if kind.is_signed_int},
    "index": {DType.I32, DType.I64},
    "byte": {DType.I8, DType.U8},
    "tiny": _TINY | {DType.I16, DType.U16, DType.I32, DType.U32},
    "bool": {DType.BOOL},
    "text": {DType.STR},
    "arithmetic": _FLOATS | _INTS | {DType.C64, DType.C128},
    "complex": _FLOATS | {DType.C64, DType.C128},
}

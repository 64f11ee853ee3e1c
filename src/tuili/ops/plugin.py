"""operator(): a row of the operator table that another package brings, checked at once."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tuili.errors import InvalidArgument, InvalidModel, TuiliError
from tuili.ir import Attr, SequenceType, TensorType
from tuili.ops.c_kernel import CKernel, check_kernel
from tuili.ops.op import KINDS, Op, Result, Slot, op, parse_signature
from tuili.ops.site import UnknownRank
from tuili.tensors import DType, Expr

if TYPE_CHECKING:
    from tuili.ops.site import Site

_NAME = re.compile(r"[A-Za-z][\w.\-]*::[A-Za-z_]\w*")
_TYPES = {kind.value for kind in DType}
_RESERVED = frozenset({"begin", "end", "scratch"})


def operator(
    name: str,
    inputs: str,
    outputs: str,
    *,
    shape: Callable[[Site], list[Any]],
    meaning: Callable[..., Any],
    attrs: Mapping[str, Attr | None] | None = None,
    allow: str | Mapping[str, str] = "any",
    kernel: CKernel | Sequence[CKernel] = (),
    random: bool = False,
) -> Op:
    """An operator of your own, for `operators=` or the entry points `tuili.operators`.

    `name` holds its ONNX domain: `my.company::Clip`. `inputs` and `outputs` are signatures as in
    `tuili.ops.op`: `X W:U bias?`. `shape(site)` returns a list with the shape of every output,
    `meaning(*inputs, **attrs)` an array or a tuple of them. `allow` names the kinds of element
    types; `attrs` holds defaults. `kernel` is C for some element types: the first whose pointers
    fit a node runs it, and the meaning runs the others. Raises InvalidArgument for anything wrong.
    """
    where = f"operator {name!r}"
    if not _NAME.fullmatch(name) or name.startswith("ai.onnx::"):
        raise InvalidArgument(
            f"{where}: expected a name with a domain of your own, as in 'my.company::Clip'"
        )
    for what, function in (("shape", shape), ("meaning", meaning)):
        if not callable(function):
            raise InvalidArgument(
                f"{where}: its {what} is {function!r}; expected a function. Every operator needs"
                " a shape rule and a NumPy meaning"
            )
    kernels = (kernel,) if isinstance(kernel, CKernel) else tuple(kernel)
    row = op(
        name,
        inputs,
        outputs,
        _guarded_rule(name, shape),
        _guarded_meaning(meaning, parse_signature(inputs), parse_signature(outputs)),
        attrs=dict(attrs or {}),
        allow=allow,
        random=random,
    )
    _check_signature(where, row)
    _check_call(where, row, meaning)
    for each in kernels:
        try:
            check_kernel(row, each)
        except InvalidArgument as error:
            raise InvalidArgument(f"{where}: {error}") from None
    return replace(row, kernels=kernels)


def _check_signature(where: str, row: Op) -> None:
    slots = (*row.inputs, *row.outputs)
    names = [slot.name for slot in slots] + list(row.attrs)
    for name in names:
        if not name.isidentifier() or name in _RESERVED or names.count(name) > 1:
            raise InvalidArgument(
                f"{where}: {name!r} cannot name an input, output or attribute; expected a word"
                f" that is used once and is none of {sorted(_RESERVED)}"
            )
    if not row.outputs:
        raise InvalidArgument(f"{where}: it has no output; expected at least one")
    for group in (row.inputs, row.outputs):
        if any(slot.variadic for slot in group[:-1]):
            raise InvalidArgument(f"{where}: only the last input or output may take any number")
    for slot in slots:
        _check_type(where, row, slot)
    for kind in row.allow.values():
        if kind not in KINDS:
            raise InvalidArgument(f"{where}: allow={kind!r}; expected one of {', '.join(KINDS)}")


def _check_type(where: str, row: Op, slot: Slot) -> None:
    text = slot.type
    known = text in KINDS or text[0].isupper() or set(text.split("|")) <= _TYPES
    if text.startswith("@"):
        known = text[1:] in row.attrs
    if not known:
        raise InvalidArgument(
            f"{where}: {slot.name!r} has the type {text!r}; expected a letter for a type variable,"
            f" `any`, `@attribute`, or element types such as f32 or i32|i64"
        )


def _check_call(where: str, row: Op, meaning: Callable[..., Any]) -> None:
    """The meaning can be called the way it will be."""
    try:
        signature = inspect.signature(meaning)
    except (TypeError, ValueError):
        return  # a function of C does not tell
    given = [slot.name for slot in row.inputs]
    try:
        signature.bind(*given, **row.attrs)
    except TypeError as error:
        shown = ", ".join([*given, *(f"{name}=..." for name in row.attrs)])
        raise InvalidArgument(
            f"{where}: its meaning takes {signature}, but is called as meaning({shown}): {error}"
        ) from None


# -- what users wrote, held to its contract ------------------------------------------------


def _guarded_rule(name: str, rule: Callable[[Site], list[Any]]) -> Callable[[Site], list[Result]]:
    @functools.wraps(rule)
    def guarded(site: Site) -> list[Result]:
        label = site.node.label
        try:
            found: Any = rule(site)
        except (TuiliError, UnknownRank):
            raise
        except Exception as error:
            raise InvalidModel(
                f"{label}: the shape rule of {name} failed with {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, list) or not all(map(_is_result, found)):  # pyright: ignore[reportUnknownArgumentType]
            raise InvalidModel(
                f"{label}: the shape rule of {name} returned {found!r};"
                " expected a list with one shape per output"
            )
        if len(found) < site.num_outputs:  # pyright: ignore[reportUnknownArgumentType]
            raise InvalidModel(
                f"{label}: the shape rule of {name} returned {len(found)} shapes;"  # pyright: ignore[reportUnknownArgumentType]
                f" the node has {site.num_outputs} outputs"
            )
        return found  # pyright: ignore[reportUnknownVariableType]

    return guarded


def _is_result(item: object) -> bool:
    if item is None or isinstance(item, TensorType | SequenceType):
        return True
    return isinstance(item, tuple | list) and all(
        isinstance(dim, int | Expr)
        for dim in item  # pyright: ignore[reportUnknownVariableType]
    )


def _guarded_meaning(
    meaning: Callable[..., Any], slots: Sequence[Slot], outputs: Sequence[Slot]
) -> Callable[..., Any]:
    optional = [None] * sum(not slot.variadic for slot in slots)
    least = sum(not slot.optional and not slot.variadic for slot in outputs)
    most = math.inf if any(slot.variadic for slot in outputs) else len(outputs)

    @functools.wraps(meaning)
    def guarded(*inputs: Any, **attrs: Any) -> Any:
        try:
            # Optional inputs that are left out at the end are None, as they are in the middle.
            found = meaning(*inputs, *optional[len(inputs) :], **attrs)
        except (TuiliError, ArithmeticError, IndexError, TypeError, ValueError):
            raise
        except Exception as error:
            # The callers name the node for the errors above; others would leave them unnamed.
            raise ValueError(f"{type(error).__name__}: {error}") from error
        count: int = len(found) if isinstance(found, tuple) else 1  # pyright: ignore[reportUnknownArgumentType]
        if not least <= count <= most:
            raise ValueError(f"the meaning gave {count} outputs; expected {len(outputs)}")
        return found  # pyright: ignore[reportUnknownVariableType]

    return guarded

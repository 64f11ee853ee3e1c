"""Operators of elementwise bodies whose C needs more than a template: see `SPECIAL`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tuili.codegen.element_types import converted, integer_limits, literal, register_type
from tuili.codegen.expr_table import FLOATS, INTS
from tuili.errors import Unsupported
from tuili.ir import Node, Value
from tuili.ops.table import attributes
from tuili.tensors import Array, DType

SHORTS = (DType.U16, DType.I16)
CODES = (DType.U8, DType.I8, *SHORTS)  # held as whole floats
HALVES = (DType.F16, DType.BF16)  # held as the floats that they are
_PREFIX = {DType.F64: "d_"}


@dataclass(frozen=True, slots=True)
class Form:
    """How one operation is written: vector or scalar, and for which element type."""

    vector: bool
    dtype: DType

    @property
    def prefix(self) -> str:
        """The prefix of the prelude's functions."""
        return "v_" if self.vector else _PREFIX.get(self.dtype, "s_")

    def number(self, value: object) -> str:
        """A literal."""
        text = literal(value, self.dtype)
        if not self.vector:
            return text
        return f"v_iset1({-int(bool(value))})" if self.dtype is DType.BOOL else f"v_set1({text})"

    def select(self, condition: str, first: str, second: str) -> str:
        """A choice between two values."""
        if self.vector and self.dtype is DType.BOOL:
            return f"({condition} & {first}) | (~{condition} & {second})"
        if self.vector:
            return f"v_select({condition}, {first}, {second})"
        return f"{condition} ? {first} : {second}"


class _Numbers:
    """`{n[0.5]}` in a template."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def __getitem__(self, key: object) -> str:
        return self._form.number(float(str(key)))


@dataclass(frozen=True, slots=True)
class Operation:
    """One node of a body, ready to print: what operators see that need more than a template."""

    node: Node
    form: Form  # of the operands
    args: tuple[str | None, ...]
    known: Mapping[Value, Array]
    is_centred: bool = False  # its codes are without their zero point
    is_stored: bool = False  # nothing else reads its result, and stores round

    def arg(self, index: int) -> str:
        """The C of an input; raises Unsupported when it is missing."""
        found = self.args[index]
        if found is None:
            raise Unsupported(f"{self.node.label}: input {index} is missing")
        return found

    @property
    def present(self) -> list[str]:
        """The C of the inputs that are there."""
        return [arg for arg in self.args if arg is not None]

    def attribute(self, name: str) -> Any:
        """An attribute, or its default."""
        return attributes(self.node)[name]

    def fill(self, template: str) -> str:
        """A template of `expr_table` with operands, attributes and prefixes put in."""
        form = self.form
        numbers = {
            name: form.number(value)
            for name, value in attributes(self.node).items()
            if isinstance(value, int | float)
        }
        unsigned = "uint64_t" if form.dtype.bits == 64 else "uint32_t"
        real = {
            name: literal(value, DType.F64)
            for name, value in attributes(self.node).items()
            if isinstance(value, float)
        }
        names = {"v": form.prefix, "n": _Numbers(form), "r": real, "T": form.dtype.c, "U": unsigned}
        return template.format(*self.args, **names, **numbers)


# -- operators ---------------------------------------------------------------------------------


def _extreme(name: str, sign: str) -> Callable[[Operation], str]:
    def write(operation: Operation) -> str:
        def pair(first: str, second: str) -> str:
            if operation.form.dtype.is_float:
                return f"{operation.form.prefix}{name}({first}, {second})"
            return f"({first} {sign} {second} ? {first} : {second})"

        return reduce(pair, operation.present)

    return write


def _sum(operation: Operation) -> str:
    template = (FLOATS if operation.form.dtype.is_float else INTS)["Add"]
    names = {"T": operation.form.dtype.c, "U": "uint64_t"}
    return reduce(lambda a, b: f"({template.format(a, b, **names)})", operation.present)


def _mean(operation: Operation) -> str:
    return f"{_sum(operation)} / {operation.form.number(len(operation.present))}"


def _clip(operation: Operation) -> str:
    x, low, high = (*operation.args, None, None)[:3]
    assert x is not None
    form = operation.form
    if form.dtype.is_float:
        # The bound comes first: a NaN in the second place stays.
        x = x if low is None else f"{form.prefix}max({low}, {x})"
        return x if high is None else f"{form.prefix}min({high}, {x})"
    x = x if low is None else f"({x} < {low} ? {low} : {x})"
    return x if high is None else f"({x} > {high} ? {high} : {x})"


def _where(operation: Operation) -> str:
    form = Form(operation.form.vector, operation.node.output.dtype)
    return form.select(operation.arg(0), operation.arg(1), operation.arg(2))


def _not(operation: Operation) -> str:
    return f"{'~' if operation.form.vector else '!'}{operation.arg(0)}"


def _cast(operation: Operation) -> str:
    source, target = operation.form.dtype, operation.node.output.dtype
    value = operation.arg(0)
    if not operation.form.vector or source is target:
        return converted(value, source, target)
    if target is DType.BOOL:
        return f"{value} != v_set1(0.0f)"
    if source is DType.BOOL:
        return f"v_select({value}, v_set1(1.0f), v_set1(0.0f))"
    rounds = target in HALVES and not operation.is_stored
    return f"v_round_{target.value}({value})" if rounds else value


def _round_to(operation: Operation) -> str:
    kind: DType = operation.attribute("to")
    if operation.form.dtype is not DType.F32:
        raise Unsupported(f"{operation.node.label}: only f32 is rounded to {kind.value}")
    return f"{operation.form.prefix}round_{kind.value}({operation.arg(0)})"


def _gelu(operation: Operation) -> str:
    tanh = operation.attribute("approximate") == "tanh"
    return f"{operation.form.prefix}{'gelu_tanh' if tanh else 'gelu'}({operation.arg(0)})"


def _is_inf(operation: Operation) -> str:
    x, form = operation.arg(0), operation.form
    tests = [
        f"({x} == {form.number(bound)})"
        for name, bound in (("detect_positive", float("inf")), ("detect_negative", -float("inf")))
        if operation.attribute(name)
    ]
    return " | ".join(tests) or f"{x} != {x} & {x} == {x}"


def _div(operation: Operation) -> str:
    first, second = operation.arg(0), operation.arg(1)
    if operation.form.dtype.is_float:
        return f"{first} / {second}"
    function = "tl_udiv" if operation.form.dtype.is_unsigned_int else "tl_div"
    return f"({operation.form.dtype.c}){function}({first}, {second})"


def _mod(operation: Operation) -> str:
    first, second = operation.arg(0), operation.arg(1)
    dtype, truncates = operation.form.dtype, bool(operation.attribute("fmod"))
    if dtype.is_float:
        rest = "fmod" if dtype is DType.F64 else "tl_fmod_float"
        function = rest if truncates else "tl_mod_float"
    elif dtype.is_unsigned_int:
        function = "tl_umod"
    else:
        function = "tl_fmod" if truncates else "tl_mod"
    return f"({register_type(dtype)}){function}({first}, {second})"


def _shift(operation: Operation) -> str:
    """A distance outside of the width, negative ones too, leaves copies of the sign bit only."""
    value, by, dtype = operation.arg(0), operation.arg(1), operation.form.dtype
    wide = "uint64_t" if dtype.bits == 64 else "uint32_t"
    inside = f"(uint64_t){by} < {dtype.bits}"
    if operation.attribute("direction") == "LEFT":
        return f"{inside} ? ({dtype.c})(({wide}){value} << {by}) : 0"
    rest = f"({value} < 0 ? -1 : 0)" if dtype.is_signed_int else "0"
    return f"{inside} ? ({dtype.c})({value} >> {by}) : {rest}"


def _quantize(operation: Operation) -> str:
    target = operation.node.output.dtype
    low, high = integer_limits(target)
    if operation.form.vector:
        ratio = f"v_round({ratio_text(operation)})"
        if operation.is_centred:
            zero = int(operation.known[operation.node.required(2)].item())
            return f"v_min(v_max({ratio}, v_set1({low - zero}.0f)), v_set1({high - zero}.0f))"
        if len(operation.present) > 2:
            zero = operation.known.get(operation.node.required(2))
            if zero is None or np.any(zero):
                ratio = f"{ratio} + {operation.present[2]}"
        return f"v_min(v_max({ratio}, v_set1({low}.0f)), v_set1({high}.0f))"
    ratio = f"s_round((float){operation.arg(0)} / (float){operation.arg(1)})"
    if len(operation.present) > 2:
        ratio = f"{ratio} + (float){operation.present[2]}"
    # The bound comes second: a NaN becomes the lower one.
    return f"({target.c})(int32_t)s_min(s_max({ratio}, {low}.0f), {high}.0f)"


def ratio_text(operation: Operation) -> str:
    """C of the first operand of a QuantizeLinear by its scale, vectors both."""
    scale = operation.known.get(operation.node.required(1))
    if scale is not None and scale.size == 1 and scale.item() == 1:
        return operation.arg(0)
    return f"{operation.arg(0)} / {operation.arg(1)}"


def _dequantize(operation: Operation) -> str:
    if operation.form.vector:
        number = operation.arg(0)
        if len(operation.present) > 2 and not operation.is_centred:
            number = f"({number} - {operation.present[2]})"
        return f"v_exact({number} * {operation.arg(1)})"
    wide = "int64_t" if operation.form.dtype.bits > 16 else "int32_t"
    number = f"({wide}){operation.arg(0)}"
    if len(operation.present) > 2:
        number = f"({number} - ({wide}){operation.present[2]})"
    real = register_type(operation.node.output.dtype)
    text = f"({real}){number} * ({real}){operation.arg(1)}"
    return f"s_exact({text})" if operation.node.output.dtype is DType.F32 else text


_POWERS: dict[float, str] = {
    0.0: "{n[1]}",
    1.0: "{0}",
    2.0: "{0} * {0}",
    3.0: "{0} * {0} * {0}",
    4.0: "({0} * {0}) * ({0} * {0})",
    0.5: "{v}sqrt({0})",
    -0.5: "{n[1]} / {v}sqrt({0})",
    -1.0: "{n[1]} / {0}",
    -2.0: "{n[1]} / ({0} * {0})",
}


def _pow(operation: Operation) -> str:
    base, exponent = operation.arg(0), operation.arg(1)
    dtype, power = operation.form.dtype, operation.node.required(1)
    if dtype.is_float:
        known = operation.known.get(power)
        template = None if known is None else _POWERS.get(float(known.reshape(-1)[0]))
        if template is not None:
            return operation.fill(template)
        if not operation.form.vector:
            exponent = converted(exponent, power.dtype, dtype)
        return f"{operation.form.prefix}pow({base}, {exponent})"
    by_doubles = f"({dtype.c})tl_to_int(pow({base}, {exponent}))"
    if power.dtype.is_float:
        return by_doubles
    whole = f"({dtype.c})tl_power((uint64_t){base}, (uint64_t){exponent})"
    return whole if power.dtype.is_unsigned_int else f"{exponent} < 0 ? {by_doubles} : {whole}"


SPECIAL: dict[str, Callable[[Operation], str]] = {
    "Max": _extreme("maximum", ">"),
    "Min": _extreme("minimum", "<"),
    "Sum": _sum,
    "Mean": _mean,
    "Clip": _clip,
    "Where": _where,
    "Not": _not,
    "Cast": _cast,
    "CastLike": _cast,
    "RoundTo": _round_to,
    "Gelu": _gelu,
    "IsInf": _is_inf,
    "Div": _div,
    "Mod": _mod,
    "BitShift": _shift,
    "Pow": _pow,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}

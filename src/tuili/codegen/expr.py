"""The printer of elementwise bodies: a graph of scalar operations becomes C statements.

A body is printed in vector form (f32; truth values are masks) or in scalar form (every type that
C computes with). Each operation is one `const` statement, so that C reads like the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tuili.codegen.element_types import (
    converted,
    integer_limits,
    is_native,
    literal,
    register_type,
    rounded,
)
from tuili.codegen.expr_table import COMPARISONS, FLOATS, INTS
from tuili.errors import InternalError, Unsupported
from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.table import attributes
from tuili.tensors import Array, DType

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
class _Operation:
    """One node of a body, ready to print."""

    node: Node
    form: Form  # of the operands
    args: tuple[str | None, ...]
    known: Mapping[Value, Array]

    def arg(self, index: int) -> str:
        found = self.args[index]
        if found is None:
            raise Unsupported(f"{self.node.label}: input {index} is missing")
        return found

    @property
    def present(self) -> list[str]:
        return [arg for arg in self.args if arg is not None]

    def attribute(self, name: str) -> Any:
        return attributes(self.node)[name]

    def fill(self, template: str) -> str:
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


# -- operators that need more than a template -------------------------------------------------


def _extreme(name: str, sign: str) -> Callable[[_Operation], str]:
    def write(operation: _Operation) -> str:
        def pair(first: str, second: str) -> str:
            if operation.form.dtype.is_float:
                return f"{operation.form.prefix}{name}({first}, {second})"
            return f"({first} {sign} {second} ? {first} : {second})"

        return reduce(pair, operation.present)

    return write


def _sum(operation: _Operation) -> str:
    template = (FLOATS if operation.form.dtype.is_float else INTS)["Add"]
    names = {"T": operation.form.dtype.c, "U": "uint64_t"}
    return reduce(lambda a, b: f"({template.format(a, b, **names)})", operation.present)


def _mean(operation: _Operation) -> str:
    return f"{_sum(operation)} / {operation.form.number(len(operation.present))}"


def _clip(operation: _Operation) -> str:
    x, low, high = (*operation.args, None, None)[:3]
    assert x is not None
    form = operation.form
    if form.dtype.is_float:
        # The bound comes first: a NaN in the second place stays.
        x = x if low is None else f"{form.prefix}max({low}, {x})"
        return x if high is None else f"{form.prefix}min({high}, {x})"
    x = x if low is None else f"({x} < {low} ? {low} : {x})"
    return x if high is None else f"({x} > {high} ? {high} : {x})"


def _where(operation: _Operation) -> str:
    form = Form(operation.form.vector, operation.node.output.dtype)
    return form.select(operation.arg(0), operation.arg(1), operation.arg(2))


def _not(operation: _Operation) -> str:
    return f"{'~' if operation.form.vector else '!'}{operation.arg(0)}"


def _cast(operation: _Operation) -> str:
    source, target = operation.form.dtype, operation.node.output.dtype
    value = operation.arg(0)
    if not operation.form.vector or source is target:
        return converted(value, source, target)
    if source in BYTES and target is DType.F32:
        return value
    if target is DType.BOOL:
        return f"{value} != v_set1(0.0f)"
    return f"v_select({value}, v_set1(1.0f), v_set1(0.0f))"


def _round_to(operation: _Operation) -> str:
    kind: DType = operation.attribute("to")
    if operation.form.dtype is not DType.F32:
        raise Unsupported(f"{operation.node.label}: only f32 is rounded to {kind.value}")
    return f"{operation.form.prefix}round_{kind.value}({operation.arg(0)})"


def _gelu(operation: _Operation) -> str:
    tanh = operation.attribute("approximate") == "tanh"
    return f"{operation.form.prefix}{'gelu_tanh' if tanh else 'gelu'}({operation.arg(0)})"


def _is_inf(operation: _Operation) -> str:
    x, form = operation.arg(0), operation.form
    tests = [
        f"({x} == {form.number(bound)})"
        for name, bound in (("detect_positive", float("inf")), ("detect_negative", -float("inf")))
        if operation.attribute(name)
    ]
    return " | ".join(tests) or f"{x} != {x} & {x} == {x}"


def _div(operation: _Operation) -> str:
    first, second = operation.arg(0), operation.arg(1)
    if operation.form.dtype.is_float:
        return f"{first} / {second}"
    function = "tl_udiv" if operation.form.dtype.is_unsigned_int else "tl_div"
    return f"({operation.form.dtype.c}){function}({first}, {second})"


def _mod(operation: _Operation) -> str:
    first, second = operation.arg(0), operation.arg(1)
    dtype, truncates = operation.form.dtype, bool(operation.attribute("fmod"))
    if dtype.is_float:
        function = "fmod" if truncates else "tl_mod_float"
    elif dtype.is_unsigned_int:
        function = "tl_umod"
    else:
        function = "tl_fmod" if truncates else "tl_mod"
    return f"({register_type(dtype)}){function}({first}, {second})"


def _shift(operation: _Operation) -> str:
    """A distance outside of the width, negative ones too, leaves copies of the sign bit only."""
    value, by, dtype = operation.arg(0), operation.arg(1), operation.form.dtype
    wide = "uint64_t" if dtype.bits == 64 else "uint32_t"
    inside = f"(uint64_t){by} < {dtype.bits}"
    if operation.attribute("direction") == "LEFT":
        return f"{inside} ? ({dtype.c})(({wide}){value} << {by}) : 0"
    rest = f"({value} < 0 ? -1 : 0)" if dtype.is_signed_int else "0"
    return f"{inside} ? ({dtype.c})({value} >> {by}) : {rest}"


def _quantize(operation: _Operation) -> str:
    target = operation.node.output.dtype
    low, high = integer_limits(target)
    scale = operation.known.get(operation.node.required(1))
    is_one = scale is not None and scale.size == 1 and scale.item() == 1
    if operation.form.vector:
        ratio = operation.arg(0) if is_one else f"{operation.arg(0)} / {operation.arg(1)}"
        ratio = f"v_round({ratio})"
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


def _dequantize(operation: _Operation) -> str:
    if operation.form.vector:
        number = operation.arg(0)
        if len(operation.present) > 2:
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


def _pow(operation: _Operation) -> str:
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


_SPECIAL: dict[str, Callable[[_Operation], str]] = {
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

_SCALAR_ONLY = frozenset({"Mod", "BitShift"})
_CODES = frozenset({DType.I8, DType.U8, DType.I16, DType.U16})
BYTES = (DType.U8, DType.I8)


# -- what can be printed ------------------------------------------------------------------------


def printable_operators() -> list[str]:
    """The operators that bodies may hold."""
    return sorted({*_SPECIAL, *FLOATS, *COMPARISONS, *INTS} - {"Identity"})


def _operand_type(node: Node) -> DType:
    """The type that decides how the operation is written."""
    return node.required(1 if node.op == "Where" else 0).dtype


def _has_template(node: Node) -> bool:
    if node.op == "QuantizeLinear":
        return node.output.dtype in _CODES and node.required(0).dtype is DType.F32
    if node.op == "DequantizeLinear":
        return node.required(0).dtype.is_int and node.output.dtype is DType.F32
    if node.op in _SPECIAL or node.op in COMPARISONS:
        return True
    return node.op in (FLOATS if _operand_type(node).is_float else INTS)


def _types(body: Graph) -> set[DType]:
    return {value.dtype for value in body.defined() if isinstance(value.type, TensorType)}


def is_printable(body: Graph) -> bool:
    """Whether a body has a scalar form."""
    return all(map(is_native, _types(body))) and all(map(_has_template, body.nodes))


def is_vectorisable(body: Graph) -> bool:
    """Whether a body has a vector form: f32, with truth values in between and codes at the ends."""
    plain = all(node.op not in _SCALAR_ONLY and _fits_vector(node) for node in body.nodes)
    return plain and is_printable(body) and _types(body) <= {DType.F32, DType.BOOL, *BYTES}


def _fits_vector(node: Node) -> bool:
    """Codes are held as whole floats: only conversions may see them."""
    data = node.required(1 if node.op == "Where" else 0).dtype
    if node.op == "QuantizeLinear":
        return node.output.dtype in BYTES
    if node.op == "Cast":
        return node.output.dtype not in BYTES
    return node.op == "DequantizeLinear" or not {data, node.output.dtype} & {*BYTES}


# -- printing -----------------------------------------------------------------------------------


def print_body(
    body: Graph,
    args: Sequence[str],
    *,
    vector: bool,
    prefix: str = "t",
    known: Mapping[int, Array] | None = None,
    rounds: bool = True,
) -> tuple[list[str], str]:
    """C statements that compute a body over C expressions, and the expression of its result.

    `args[i]` is read for input i, more than once; give variables. Inputs whose one element is
    known at compile time are written as numbers. Without `rounds` the last operation is left to
    the caller: see `final_quantize`.
    """
    constants = {value: value.constant for value in body.constants.values()}
    constants |= {body.inputs[index]: array for index, array in (known or {}).items()}
    names: dict[Value, str] = dict(zip(body.inputs, args, strict=True))
    for value, array in constants.items():
        names[value] = Form(vector, value.dtype).number(_only(array))
    found = {value: array for value, array in constants.items() if array is not None}
    statements: list[str] = []
    codes = any(node.op == "QuantizeLinear" for node in body.nodes)
    for node in body.nodes if rounds else body.nodes[:-1]:
        inputs = tuple(None if value is None else names[value] for value in node.inputs)
        text = _print_node(_Operation(node, Form(vector, _operand_type(node)), inputs, found))
        if codes and node.op == "Mul" and node.output.dtype is DType.F32:
            text = f"{'v' if vector else 's'}_exact({text})"  # not fused into a sum
        name = f"{prefix}{len(statements)}"
        names[node.output] = name
        statements.append(f"const {_variable_type(node.output.dtype, vector)} {name} = {text};")
    result = body.outputs[0] if rounds else body.nodes[-1].required(0)
    return statements, names[result]


def final_quantize(body: Graph, known: Mapping[int, Array]) -> int | None:
    """The zero point when a body ends in QuantizeLinear of the scale 1, which a store can do."""
    last = body.nodes[-1] if body.nodes else None
    if last is None or last.op != "QuantizeLinear" or body.outputs[0] is not last.output:
        return None
    found = {body.inputs[index]: array for index, array in known.items()}
    rest = [None if value is None else found.get(value, value.constant) for value in last.inputs]
    scale, zero = rest[1], rest[2] if len(rest) > 2 else None
    if scale is None or scale.size != 1 or scale.item() != 1 or zero is None or zero.size != 1:
        return None
    return int(zero.item())


def _only(array: Array | None) -> object:
    if array is None or array.size != 1:
        raise InternalError(f"a constant of an elementwise body must have one element: {array!r}")
    return array.reshape(-1)[0]


def _variable_type(dtype: DType, vector: bool) -> str:
    if vector:
        return "vi" if dtype is DType.BOOL else "vf"
    # As wide as what is compared: a byte between would slow vectors of the compiler down.
    return "int32_t" if dtype is DType.BOOL else register_type(dtype)


def _print_node(operation: _Operation) -> str:
    node, dtype = operation.node, operation.form.dtype
    special = _SPECIAL.get(node.op)
    if special is not None:
        text = special(operation)
    else:
        table = {**(FLOATS if dtype.is_float else INTS), **COMPARISONS}
        if node.op not in table:
            raise Unsupported(f"{node.label}: no C form for elements of type {dtype.value}")
        text = operation.fill(table[node.op])
    # Cast has rounded already.
    cast = node.op in ("Cast", "CastLike")
    return text if operation.form.vector or cast else rounded(node.output.dtype, text)

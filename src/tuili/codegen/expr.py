"""The printer of elementwise bodies: a graph of scalar operations becomes C statements.

A body is printed in vector form (f32; truth values are masks) or in scalar form (every type that
C computes with). Each operation is one `const` statement, so that C reads like the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuili.codegen.element_types import is_native, register_type, rounded
from tuili.codegen.expr_operators import CODES, HALVES, SPECIAL, Form, Operation, ratio_text
from tuili.codegen.expr_table import COMPARISONS, FLOATS, INTS
from tuili.errors import InternalError, Unsupported
from tuili.ir import Graph, Node, TensorType, Value
from tuili.tensors import Array, DType

_SCALAR_ONLY = frozenset({"Mod", "BitShift"})


# -- what can be printed ------------------------------------------------------------------------


def printable_operators() -> list[str]:
    """The operators that bodies may hold."""
    return sorted({*SPECIAL, *FLOATS, *COMPARISONS, *INTS} - {"Identity"})


def _operand_type(node: Node) -> DType:
    """The type that decides how the operation is written."""
    return node.required(1 if node.op == "Where" else 0).dtype


def _has_template(node: Node) -> bool:
    if node.op == "QuantizeLinear":
        return node.output.dtype in CODES and node.required(0).dtype is DType.F32
    if node.op == "DequantizeLinear":
        return node.required(0).dtype.is_int and node.output.dtype is DType.F32
    if node.op in SPECIAL or node.op in COMPARISONS:
        return True
    return node.op in (FLOATS if _operand_type(node).is_float else INTS)


def _types(body: Graph) -> set[DType]:
    return {value.dtype for value in body.defined() if isinstance(value.type, TensorType)}


def is_printable(body: Graph) -> bool:
    """Whether a body has a scalar form."""
    return all(map(is_native, _types(body))) and all(map(_has_template, body.nodes))


def is_vectorisable(body: Graph) -> bool:
    """Whether a body has a vector form: floats and truth values, with codes at the ends."""
    plain = all(node.op not in _SCALAR_ONLY and _fits_vector(node) for node in body.nodes)
    return plain and is_printable(body) and _types(body) <= {DType.F32, DType.BOOL, *CODES, *HALVES}


def is_of_truths(body: Graph) -> bool:
    """Whether all values are truth values: bytes of 0 and 1, which a compiler sees as vectors."""
    return _types(body) == {DType.BOOL}


def _fits_vector(node: Node) -> bool:
    """Codes are held as whole floats: only conversions may see them."""
    data = node.required(1 if node.op == "Where" else 0).dtype
    if node.op == "QuantizeLinear":
        return node.output.dtype in CODES
    if node.op == "Cast":
        return node.output.dtype not in CODES
    return node.op == "DequantizeLinear" or not {data, node.output.dtype} & {*CODES}


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
    known at compile time are written as numbers. Without `rounds` the result is what the last
    operation rounds: see `final_quantize`.
    """
    constants = {value: value.constant for value in body.constants.values()}
    constants |= {body.inputs[index]: array for index, array in (known or {}).items()}
    names: dict[Value, str] = dict(zip(body.inputs, args, strict=True))
    for value, array in constants.items():
        names[value] = Form(vector, value.dtype).number(_only(array))
    found = {value: array for value, array in constants.items() if array is not None}
    statements: list[str] = []
    codes = any(node.op == "QuantizeLinear" for node in body.nodes)
    centred = _centred(body, found)
    truths = not vector and is_of_truths(body)
    for node in body.nodes if rounds else body.nodes[:-1]:
        inputs = tuple(None if value is None else names[value] for value in node.inputs)
        form, is_centred = Form(vector, _operand_type(node)), vector and node in centred
        is_stored = vector and not node.output.users
        text = _print_node(Operation(node, form, inputs, found, is_centred, is_stored))
        if codes and node.op == "Mul" and node.output.dtype is DType.F32:
            text = f"{'v' if vector else 's'}_exact({text})"  # not fused into a sum
        name = f"{prefix}{len(statements)}"
        names[node.output] = name
        ctype = "uint8_t" if truths else _variable_type(node.output.dtype, vector)
        statements.append(f"const {ctype} {name} = {text};")
    if rounds:
        return statements, names[body.outputs[0]]
    last = body.nodes[-1]
    inputs = tuple(None if value is None else names[value] for value in last.inputs)
    return statements, ratio_text(Operation(last, Form(vector, DType.F32), inputs, found))


def _centred(body: Graph, found: Mapping[Value, Array]) -> set[Node]:
    """QuantizeLinear nodes whose zero point every reader takes off again, and these readers."""
    centred: set[Node] = set()
    for node in body.nodes:
        zero = _known_zero(node, found)
        readers = node.output.users if node.op == "QuantizeLinear" else []
        same = [
            reader.op == "DequantizeLinear"
            and reader.required(0) is node.output
            and _known_zero(reader, found) == zero
            for reader in readers
        ]
        if zero is not None and same and all(same) and node.output not in body.outputs:
            centred |= {node, *readers}
    return centred


def _known_zero(node: Node, found: Mapping[Value, Array]) -> int | None:
    """The zero point of a node that makes or reads codes, where it is one number."""
    is_codes = node.op in ("QuantizeLinear", "DequantizeLinear")
    value = node.input(2) if is_codes else None
    zero = None if value is None else found.get(value)
    return int(zero.item()) if zero is not None and zero.size == 1 else None


def final_quantize(body: Graph, known: Mapping[int, Array]) -> int | None:
    """The zero point when a body ends in QuantizeLinear of one scale, which a store rounds for."""
    last = body.nodes[-1] if body.nodes else None
    if last is None or last.op != "QuantizeLinear" or body.outputs[0] is not last.output:
        return None
    found = {body.inputs[index]: array for index, array in known.items()}
    rest = [None if value is None else found.get(value, value.constant) for value in last.inputs]
    scale, zero = rest[1], rest[2] if len(rest) > 2 else None
    if scale is None or scale.size != 1 or zero is None or zero.size != 1:
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


def _print_node(operation: Operation) -> str:
    node, dtype = operation.node, operation.form.dtype
    special = SPECIAL.get(node.op)
    if special is not None:
        text = special(operation)
    else:
        table = {**(FLOATS if dtype.is_float else INTS), **COMPARISONS}
        if node.op not in table:
            raise Unsupported(f"{node.label}: no C form for elements of type {dtype.value}")
        text = operation.fill(table[node.op])
    # Cast has rounded already.
    cast = node.op in ("Cast", "CastLike")
    if operation.form.vector and node.output.dtype in HALVES and not cast:
        if operation.is_stored:
            return text
        return f"v_round_{node.output.dtype.value}({text})"
    return text if operation.form.vector or cast else rounded(node.output.dtype, text)

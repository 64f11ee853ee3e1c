"""Symbolic dims: integer expressions over symbols, in a canonical form.

Grammar (text, C and Python agree on it, all divisions round towards minus infinity):

    dim  ::= int | expr
    expr ::= sum of  coefficient * atom ** power * ...
    atom ::= symbol | dim // dim | dim % dim | max(dim, dim) | min(dim, dim)

A `Dim` is a plain `int` when it is known, else an `Expr`. Two expressions are equal when their
canonical sums are equal; that is sound but not complete (unequal means "not proved equal").
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from tuili.errors import InvalidArgument, ParseError

_KEPT = 1 << 15  # products whose place in a sum is kept

Dim: TypeAlias = "int | Expr"
Shape: TypeAlias = "tuple[Dim, ...]"


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str

    def text(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class _Call:
    """An opaque operation: `//`, `%`, `max`, `min`."""

    op: str
    args: tuple[Dim, Dim]

    def text(self) -> str:
        left, right = self.args
        if self.op in ("max", "min"):
            return f"{self.op}({left}, {right})"
        return f"{_factor(left)} {self.op} {_factor(right)}"


_Atom: TypeAlias = "_Symbol | _Call"
_Monomial: TypeAlias = "tuple[tuple[_Atom, int], ...]"


def _factor(dim: Dim) -> str:
    text = str(dim)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _monomial_text(monomial: _Monomial, coefficient: int) -> str:
    parts: list[str] = [] if abs(coefficient) == 1 and monomial else [str(abs(coefficient))]
    for atom, power in monomial:
        text = atom.text()
        shown = text if isinstance(atom, _Symbol) or atom.op in ("max", "min") else f"({text})"
        parts.extend([shown] * power)
    return "*".join(parts)


class Expr:
    """A sum of products of symbols and opaque operations; immutable and hashable."""

    __slots__ = ("_hash", "_text", "terms")

    terms: tuple[tuple[_Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[_Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)
        self._text: str | None = None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    def __repr__(self) -> str:
        return f"Dim({str(self)!r})"

    def __str__(self) -> str:
        # Sizes of one layer are made of those before it: without what is kept here and in
        # `_sort_key`, a detector of 1,500 nodes spends a minute on the texts of its sizes.
        if self._text is None:
            self._text = self._written()
        return self._text

    def _written(self) -> str:
        # Positive terms first, so that the text never starts with a minus without need.
        ordered = sorted(self.terms, key=lambda term: (term[1] < 0, not term[0]))
        text = ""
        for index, (monomial, coefficient) in enumerate(ordered):
            shown = _monomial_text(monomial, coefficient)
            if index == 0:
                text = f"-{shown}" if coefficient < 0 else shown
            else:
                text += f" - {shown}" if coefficient < 0 else f" + {shown}"
        if len(self.terms) == 1 and isinstance(self.single_atom(), _Call):
            return text[1:-1] if text.startswith("(") else text
        return text

    def single_atom(self) -> _Atom | None:
        """The atom when the expression is exactly one atom."""
        (monomial, coefficient) = self.terms[0]
        if len(self.terms) == 1 and coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
            return monomial[0][0]
        return None

    @property
    def symbol(self) -> str | None:
        """The symbol's name when the expression is exactly one symbol."""
        atom = self.single_atom()
        return atom.name if isinstance(atom, _Symbol) else None

    def __add__(self, other: Dim) -> Dim:
        return _from_dict(_merge(_terms(self), _terms(other), 1))

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _from_dict(_merge(_terms(self), _terms(other), -1))

    def __rsub__(self, other: Dim) -> Dim:
        return _from_dict(_merge(_terms(other), _terms(self), -1))

    def __neg__(self) -> Dim:
        return 0 - self

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return floor_mod(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return floor_mod(other, self)


def Sym(name: str) -> Expr:  # noqa: N802 - reads like the class it stands for
    """The symbolic dim called `name` (an identifier)."""
    if not name.isidentifier():
        raise InvalidArgument(f"a symbolic dim needs an identifier as its name, found {name!r}")
    return Expr(((((_Symbol(name), 1),), 1),))


def _call(op: str, left: Dim, right: Dim) -> Expr:
    return Expr(((((_Call(op, (left, right)), 1),), 1),))


def _terms(dim: Dim) -> dict[_Monomial, int]:
    if isinstance(dim, Expr):
        return dict(dim.terms)
    return {(): int(dim)} if dim else {}


def _merge(
    left: dict[_Monomial, int], right: dict[_Monomial, int], sign: int
) -> dict[_Monomial, int]:
    merged = dict(left)
    for monomial, coefficient in right.items():
        merged[monomial] = merged.get(monomial, 0) + sign * coefficient
    return merged


@lru_cache(maxsize=_KEPT)
def _sort_key(monomial: _Monomial) -> tuple[int, str]:
    return (-sum(power for _, power in monomial), _monomial_text(monomial, 1))


def _from_dict(terms: dict[_Monomial, int]) -> Dim:
    kept = {monomial: value for monomial, value in terms.items() if value}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return Expr(tuple(sorted(kept.items(), key=lambda term: _sort_key(term[0]))))


def _times(left: _Monomial, right: _Monomial) -> _Monomial:
    powers: dict[_Atom, int] = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].text()))


def _multiply(left: Dim, right: Dim) -> Dim:
    product: dict[_Monomial, int] = {}
    for monomial, value in _terms(left).items():
        for other, factor in _terms(right).items():
            key = _times(monomial, other)
            product[key] = product.get(key, 0) + value * factor
    return _from_dict(product)


def _divide_monomial(monomial: _Monomial, divisor: _Monomial) -> _Monomial | None:
    powers = dict(monomial)
    for atom, power in divisor:
        if powers.get(atom, 0) < power:
            return None
        powers[atom] -= power
    return tuple((atom, powers[atom]) for atom, _ in monomial if powers[atom])


def _ratio(left: Dim, right: Dim) -> Dim | None:
    """The single product that times `right`, a sum, is `left`."""
    lead, factor = next(iter(_terms(right).items()))
    for monomial, value in _terms(left).items():
        divided = _divide_monomial(monomial, lead)
        if divided is not None and value % factor == 0:
            candidate = _from_dict({divided: value // factor})
            if candidate * right == left:
                return candidate
    return None


def _split_exact(left: Dim, right: Dim) -> tuple[Dim, Dim]:
    """`left` as (quotient, rest): the terms that `right`, one product, divides, and the others."""
    right_terms = list(_terms(right).items())
    if len(right_terms) != 1:
        found = _ratio(left, right)
        return (0, left) if found is None else (found, 0)
    divisor, factor = right_terms[0]
    quotient: dict[_Monomial, int] = {}
    rest: dict[_Monomial, int] = {}
    for monomial, value in _terms(left).items():
        divided = _divide_monomial(monomial, divisor)
        if divided is not None and value % factor == 0:
            quotient[divided] = value // factor
        else:
            rest[monomial] = value
    return _from_dict(quotient), _from_dict(rest)


def floor_div(left: Dim, right: Dim) -> Dim:
    """`left // right`, rounded towards minus infinity; exact parts are divided out."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    if right == 1:
        return left
    quotient, rest = _split_exact(left, right)
    if rest == 0:
        return quotient
    if isinstance(rest, int) and isinstance(right, int):
        return quotient + rest // right
    return quotient + _nested_div(rest, right)


def _nested_div(left: Dim, right: Dim) -> Dim:
    """`(x // a + c) // b` is `(x + c*a) // (a*b)` for whole a, b > 0."""
    if isinstance(left, Expr) and isinstance(right, int):
        constant = dict(left.terms).get((), 0)
        inner = left - constant
        atom = inner.single_atom() if isinstance(inner, Expr) else None
        if isinstance(atom, _Call) and atom.op == "//" and isinstance(atom.args[1], int):
            scale = atom.args[1]
            return floor_div(atom.args[0] + constant * scale, scale * right)
    return _call("//", left, right)


def floor_mod(left: Dim, right: Dim) -> Dim:
    """`left % right` with the sign of `right`; exact multiples vanish."""
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    _, rest = _split_exact(left, right)
    if isinstance(rest, int) and (rest == 0 or isinstance(right, int)):
        return rest % right if rest else 0
    return _call("%", rest, right)


def ceil_div(left: Dim, right: Dim) -> Dim:
    """`left / right` rounded towards plus infinity."""
    return floor_div(left + right - 1, right)


def _extreme(op: str, left: Dim, right: Dim) -> Dim:
    difference = left - right
    if isinstance(difference, int):
        larger, smaller = (left, right) if difference >= 0 else (right, left)
        return larger if op == "max" else smaller
    for one, other in ((left, right), (right, left)):
        atom = one.single_atom() if isinstance(one, Expr) else None
        if isinstance(atom, _Call) and atom.op in ("max", "min") and other in atom.args:
            # max(max(a, b), a) is max(a, b); max(min(a, b), a) is a.
            return one if atom.op == op else other
    first, second = sorted((left, right), key=str)
    return _call(op, first, second)


def dim_max(left: Dim, right: Dim) -> Dim:
    """The larger of two dims."""
    return _extreme("max", left, right)


def dim_min(left: Dim, right: Dim) -> Dim:
    """The smaller of two dims."""
    return _extreme("min", left, right)


def broadcast_dim(left: Dim, right: Dim) -> Dim | None:
    """The NumPy broadcast of two dims; None when known dims clash.

    Two unequal symbolic dims broadcast to their maximum: at run time they are equal or one is 1.
    """
    if right in (left, 1):
        return left
    if left == 1:
        return right
    if isinstance(left, int) and isinstance(right, int):
        return None
    # A known dim above 1 decides: the symbolic one must be equal to it or 1.
    if isinstance(left, int):
        return left
    if isinstance(right, int):
        return right
    # A dim that is a multiple of 2 or more is never 1, so it decides too.
    deciding = [dim for dim in (left, right) if gcd_of(dim) > 1]
    if deciding:
        return min(deciding, key=lambda dim: (len(str(dim)), str(dim)))
    return dim_max(left, right)


def numel(shape: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for dim in shape:
        total = total * dim
    return total


def symbols_of(dim: Dim) -> set[str]:
    """The names of the symbols that a dim depends on."""
    found: set[str] = set()
    if isinstance(dim, Expr):
        for monomial, _ in dim.terms:
            for atom, _ in monomial:
                if isinstance(atom, _Symbol):
                    found.add(atom.name)
                else:
                    found |= symbols_of(atom.args[0]) | symbols_of(atom.args[1])
    return found


_OPERATIONS: dict[str, Any] = {
    "//": floor_div,
    "%": floor_mod,
    "max": dim_max,
    "min": dim_min,
}


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The dim with symbols replaced; symbols without a value stay."""
    return _substituted(dim, values, {})


def _substituted(dim: Dim, values: Mapping[str, Dim], known: dict[_Call, Dim]) -> Dim:
    """The same; operations that stand in several places are done once."""
    if not isinstance(dim, Expr):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        product: Dim = coefficient
        for atom, power in monomial:
            value = _value_of(atom, values, known)
            for _ in range(power):
                product = product * value
        total = total + product
    return total


def _value_of(atom: _Atom, values: Mapping[str, Dim], known: dict[_Call, Dim]) -> Dim:
    if isinstance(atom, _Symbol):
        value = values.get(atom.name)
        return Sym(atom.name) if value is None else value
    found = known.get(atom)
    if found is None:
        left, right = (_substituted(arg, values, known) for arg in atom.args)
        found = known[atom] = _OPERATIONS[atom.op](left, right)
    return found


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The number that a dim stands for; raises InvalidArgument for a symbol without a value."""
    if isinstance(dim, int):
        return dim
    try:
        result = substitute(dim, values)
    except ZeroDivisionError:
        raise InvalidArgument(f"dim {dim} divides by zero for {dict(values)}") from None
    if not isinstance(result, int):
        missing = ", ".join(sorted(symbols_of(result)))
        raise InvalidArgument(f"dim {dim} needs a value for {missing}, got {dict(values)}")
    return result


def parse_dim(text: str | int) -> Dim:
    """A dim from its text, such as `4*((H + 3) // 4)`; raises ParseError."""
    if isinstance(text, int):
        return text
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = getattr(error, "offset", None) or 1
        raise ParseError("not a dim expression", line=1, column=column, text=text) from None
    return _build(tree, text)


def _build(node: ast.expr, text: str) -> Dim:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return Sym(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return 0 - _build(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_build(left, text), _build(right, text))
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=[left, right], keywords=[]):
            return _OPERATIONS[name](_build(left, text), _build(right, text))
        case _:
            message = "expected a number, a symbol, + - * // %, max(a, b) or min(a, b)"
            raise ParseError(message, line=1, column=node.col_offset + 1, text=text)


_BINARY: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: floor_div,
    ast.Mod: floor_mod,
}


def gcd_of(dim: Dim) -> int:
    """A whole number that divides the dim for every value of its symbols."""
    return math.gcd(*_terms(dim).values())

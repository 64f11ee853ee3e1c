"""Dims as C: int64_t expressions with the same value, rounding towards minus infinity included."""

from __future__ import annotations

import ast

from tuili.errors import InternalError
from tuili.tensors import Dim

_FUNCTIONS: dict[type[ast.operator], str] = {
    ast.FloorDiv: "tl_floordiv",
    ast.Mod: "tl_floormod",
}
_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}


def c_dim(dim: Dim, *, saturating: bool = False) -> str:
    """The C expression of a dim; symbols are C variables of the same name.

    `saturating` products stop at a large number instead of wrapping around.
    """
    if isinstance(dim, int):
        return _number(dim)
    # The text form is the canonical one, and Python's grammar reads it.
    tree = ast.parse(str(dim), mode="eval").body
    return _print(_Saturating().visit(tree) if saturating else tree)


class _Saturating(ast.NodeTransformer):
    """Makes `a * b` a call `mul(a, b)`."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Mult):
            return node
        return ast.Call(ast.Name("mul"), [node.left, node.right], [])


def _number(value: int) -> str:
    return str(value) if -(2**31) < value < 2**31 else f"INT64_C({value})"


def _print(node: ast.expr, *, inside_product: bool = False) -> str:
    match node:
        case ast.Constant(value=int(value)):
            return _number(value)
        case ast.Name(id=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{_print(operand, inside_product=True)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _FUNCTIONS:
            return f"{_FUNCTIONS[type(op)]}({_print(left)}, {_print(right)})"
        case ast.BinOp(left=left, op=op, right=right):
            product = isinstance(op, ast.Mult)
            sides = [_print(side, inside_product=product) for side in (left, right)]
            text = f" {_SIGNS[type(op)]} ".join(sides)
            return text if product or not inside_product else f"({text})"
        case ast.Call(func=ast.Name(id=name), args=[left, right]):
            return f"tl_{name}({_print(left)}, {_print(right)})"
        case _:
            raise InternalError(f"a dim printed as {ast.unparse(node)!r} has no C form")

"""Operands of attention as they were before exporters turned, scaled and repeated them."""

from __future__ import annotations

from dataclasses import dataclass

from tuili.ir import Node, Value
from tuili.ops.table import attr
from tuili.tensors import Dim, Shape

ORDERS: dict[tuple[int, ...], str] = {(0, 2, 1, 3): "bshd", (0, 1, 2, 3): "bhsd"}
_KEY_ORDERS: dict[tuple[int, ...], str] = {(0, 2, 3, 1): "bshd", (0, 1, 3, 2): "bhsd"}


@dataclass(frozen=True, slots=True)
class Operand:
    """A value whose axes are batch, heads, sequence and depth in some order."""

    value: Value
    order: str

    @property
    def heads(self) -> Dim:
        """How many heads there are."""
        return self.value.shape[self.order.index("h")]


def plain(value: Value) -> Operand:
    """Of [B, H, S, D]: behind the usual transpose of heads and rows."""
    return _behind(value, ORDERS) or Operand(value, "bhsd")


def keys_and_values(right: Value, values: Value) -> tuple[Operand, Operand]:
    """Of [B, H, D, S], the right operand of the product, and [B, H, S, D].

    Where both repeat fewer heads for the queries that share them, those are given.
    """
    shared = _pair(_shared_keys(right), _unrepeated(values))
    return shared or (_turned(right) or Operand(right, "bhds"), plain(values))


def before_sharing(keys: Value, values: Value) -> tuple[Operand, Operand] | None:
    """Keys and values, [B, H, S, D] both, of the fewer heads that queries share."""
    return _pair(_unrepeated(keys), _unrepeated(values))


def _pair(keys: Operand | None, values: Operand | None) -> tuple[Operand, Operand] | None:
    if keys is None or values is None or keys.heads != values.heads:
        return None
    return keys, values


def _shared_keys(right: Value) -> Operand | None:
    batch, heads, depth, length = right.shape
    shape = (batch, heads, length, depth)
    ahead = _made_by(right, "Transpose")
    if ahead is not None and tuple(attr(ahead, "perm") or ()) == (0, 1, 3, 2):
        return _unrepeated(ahead.required(0))
    source = _before_flat_turn(right)
    if source is None:
        return None
    return _before_spread(source, shape) or (_unrepeated(source) if source.shape == shape else None)


def unscaled(value: Value) -> tuple[Value, float]:
    """The value before it was multiplied with a number, and that number."""
    node = value.producer
    if node is None or node.op not in ("Mul", "Div"):
        return value, 1.0
    operands = [node.required(0), node.required(1)]
    if node.op == "Mul" and operands[0].is_constant:
        operands.reverse()
    factor = operands[1].constant
    if factor is None or factor.size != 1 or operands[0].shape != value.shape:
        return value, 1.0
    number = float(factor.reshape(()))
    if node.op == "Mul":
        return operands[0], number
    return (operands[0], 1 / number) if number else (value, 1.0)


def _made_by(value: Value, op: str) -> Node | None:
    node = value.producer
    return node if node is not None and node.op == op else None


def _behind(value: Value, orders: dict[tuple[int, ...], str]) -> Operand | None:
    node = _made_by(value, "Transpose")
    if node is None:
        return None
    order = orders.get(tuple(attr(node, "perm") or (3, 2, 1, 0)))
    return None if order is None else Operand(node.required(0), order)


def _turned(value: Value) -> Operand | None:
    """Keys [B, H, D, S] as they were before the transpose for the product."""
    ahead = _behind(value, _KEY_ORDERS)
    if ahead is None:
        return _flatly_turned(value)
    return ahead if ahead.order == "bshd" else plain(ahead.value)


def _flatly_turned(value: Value) -> Operand | None:
    source = _before_flat_turn(value)
    batch, heads, depth, length = value.shape
    if source is None or source.shape != (batch, heads, length, depth):
        return None
    return plain(source)


def _before_flat_turn(value: Value) -> Value | None:
    """Turned with batch and heads in one axis: Reshape, Transpose (0, 2, 1), Reshape."""
    outer = _made_by(value, "Reshape")
    turn = outer and _made_by(outer.required(0), "Transpose")
    inner = turn and _made_by(turn.required(0), "Reshape")
    if turn is None or inner is None or tuple(attr(turn, "perm") or ()) != (0, 2, 1):
        return None
    batch, heads, depth, length = value.shape
    same = inner.output.shape == (batch * heads, length, depth)
    return inner.required(0) if same else None


def _unrepeated(value: Value) -> Operand | None:
    """[B, H, S, D] before each of its heads was repeated: Reshape(Expand([B, heads, 1, S, D]))."""
    merge = _made_by(value, "Reshape")
    return None if merge is None else _before_spread(merge.required(0), value.shape)


def _before_spread(spread: Value, shape: Shape) -> Operand | None:
    """What an Expand to [B, heads, times, S, D] repeats, if `shape` is that with heads merged."""
    node = _made_by(spread, "Expand")
    if node is None or len(spread.shape) != 5:
        return None
    batch, heads, times, length, depth = spread.shape
    known = isinstance(heads, int) and isinstance(times, int)
    if not known or shape != (batch, heads * times, length, depth):
        return None
    apart = node.required(0)
    step = _made_by(apart, "Unsqueeze") or _made_by(apart, "Reshape")
    if apart.shape != (batch, heads, 1, length, depth) or step is None:
        return None
    source = step.required(0)
    return plain(source) if source.shape == (batch, heads, length, depth) else None

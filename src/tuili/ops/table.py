"""The operator table: every operator that tuili knows, by name."""

from __future__ import annotations

from typing import Any

from tuili.errors import AlreadyExists, UnsupportedOperator, nearest
from tuili.ir import Node
from tuili.ops import (
    activations,
    arithmetic,
    attention,
    contrib_attention,
    contrib_convolution,
    contrib_math,
    contrib_norms,
    contrib_others,
    contrib_quantized,
    control,
    convolution,
    creation,
    gathers,
    internal,
    linear,
    losses,
    ml_features,
    ml_linear,
    ml_trees,
    movement,
    normalization,
    pooling,
    quantization,
    quantized_products,
    recurrent,
    reductions,
    resize,
    selection,
    sequences,
    signals,
    slicing,
    strings,
    training,
    unary,
    vision,
)
from tuili.ops.op import KINDS, REQUIRED, Op

FAMILIES = (
    unary,
    arithmetic,
    activations,
    movement,
    slicing,
    gathers,
    creation,
    selection,
    linear,
    convolution,
    pooling,
    normalization,
    reductions,
    resize,
    attention,
    recurrent,
    quantization,
    quantized_products,
    control,
    sequences,
    strings,
    signals,
    vision,
    losses,
    ml_linear,
    ml_trees,
    ml_features,
    training,
    contrib_math,
    contrib_quantized,
    contrib_attention,
    contrib_convolution,
    contrib_norms,
    contrib_others,
    internal,
)

TABLE: dict[str, Op] = {row.name: row for family in FAMILIES for row in family.ROWS}


def register(row: Op) -> None:
    """Add an operator from outside tuili; raises AlreadyExists for a name that is taken.

    The name holds its domain, as in `my.company::Blur`; `op` in `tuili.ops.op` makes a row.
    """
    if row.name in TABLE:
        raise AlreadyExists(f"operator {row.name!r} is in the table already; choose another name")
    TABLE[row.name] = row


def lookup(name: str) -> Op:
    """The row of an operator; raises UnsupportedOperator naming the nearest known one."""
    try:
        return TABLE[name]
    except KeyError:
        hint = nearest(name, TABLE)
        raise UnsupportedOperator(f"unknown operator {name!r}.{hint}", [(name, [])]) from None


def attr(node: Node, name: str) -> Any:
    """An attribute of a node, or the table's default."""
    return node.attrs.get(name, lookup(node.op).attrs.get(name))


def attributes(node: Node) -> dict[str, Any]:
    """All attributes of a node, defaults filled in."""
    return {**lookup(node.op).attrs, **node.attrs}


__all__ = ["KINDS", "REQUIRED", "TABLE", "Op", "attr", "attributes", "lookup", "register"]

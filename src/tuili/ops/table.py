"""The operator table: every operator that tuili knows, by name."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from tuili.errors import UnsupportedOperator, nearest
from tuili.ir import Node
from tuili.ops import (
    activations,
    arithmetic,
    attention,
    coded_lstm,
    contrib,
    control,
    convolution,
    creation,
    frames,
    gathers,
    images,
    installed,
    internal,
    linear,
    losses,
    ml,
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
    trees,
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
    coded_lstm,
    control,
    sequences,
    strings,
    signals,
    vision,
    losses,
    *ml.FAMILIES,
    trees,
    training,
    *contrib.FAMILIES,
    images,
    internal,
    frames,
)

TABLE: dict[str, Op] = {row.name: row for family in FAMILIES for row in family.ROWS}


def find(name: str) -> Op | None:
    """The row of an operator, of plug-ins too; None when nobody knows it."""
    return TABLE.get(name) or installed.find(name, TABLE)


def using(operators: Iterable[Op]) -> AbstractContextManager[None]:
    """Let `find` see plug-in operators in a block; raises AlreadyExists for names of the table."""
    return installed.using(operators, TABLE)


def hint(name: str) -> str:
    """The nearest known operator, and where one with a domain may come from."""
    known = nearest(name, [*TABLE, *installed.names(TABLE)])
    if "::" not in name:
        return known
    return (
        f"{known} If a package brings it, install that package (entry points"
        f" {installed.GROUP!r}), set {installed.VARIABLE}, or pass `operators`"
    )


def lookup(name: str) -> Op:
    """The row of an operator; raises UnsupportedOperator naming the nearest known one."""
    row = find(name)
    if row is None:
        raise UnsupportedOperator(f"unknown operator {name!r}.{hint(name)}", [(name, [])])
    return row


def attr(node: Node, name: str) -> Any:
    """An attribute of a node, or the table's default."""
    return node.attrs.get(name, lookup(node.op).attrs.get(name))


def attributes(node: Node) -> dict[str, Any]:
    """All attributes of a node, defaults filled in."""
    return {**lookup(node.op).attrs, **node.attrs}


__all__ = [
    "KINDS",
    "REQUIRED",
    "TABLE",
    "Op",
    "attr",
    "attributes",
    "find",
    "hint",
    "lookup",
    "using",
]

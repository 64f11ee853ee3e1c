"""The sizes of an RNN, GRU or LSTM node, by name."""

from __future__ import annotations

from dataclasses import dataclass

from tuili.ir import Node
from tuili.ops.table import attr
from tuili.tensors import Dim


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a node; strides of X and Y follow its `layout`."""

    time: Dim
    batch: Dim
    inputs: int
    hidden: int
    directions: int
    batch_first: bool


def sizes_of(node: Node) -> Sizes:
    """The sizes of an RNN, GRU or LSTM."""
    x, r = node.required(0).shape, node.required(2).shape
    batch_first = bool(attr(node, "layout"))
    time, batch = (x[1], x[0]) if batch_first else (x[0], x[1])
    directions = 2 if attr(node, "direction") == "bidirectional" else 1
    inputs, hidden = x[2], r[2]
    assert isinstance(inputs, int)
    assert isinstance(hidden, int)
    return Sizes(time, batch, inputs, hidden, directions, batch_first)

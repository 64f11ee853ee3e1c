"""DynamicQuantizeLSTM is computed with the real weights that its codes stand for: as an LSTM.

The operator quantizes its inputs and its state anew in every step, which takes longer than the f32
kernel does and is further from the model before it was quantized. The weights are held as f32.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.tensors import Array

_OWN = ("input_forget",)  # the attribute that LSTM has for itself in this form only


def widen_lstm(graph: Graph) -> bool:
    """Replace every node whose weights and their parameters are known."""
    changed = False
    for node in list(graph.nodes):
        if node.op == "com.microsoft::DynamicQuantizeLSTM":
            changed |= _widened(graph, node)
    return changed


def _widened(graph: Graph, node: Node) -> bool:
    weights, recurrence = _real(node, 1, 8), _real(node, 2, 10)
    if weights is None or recurrence is None or attr(node, "input_forget"):
        return False
    inputs: list[Value | None] = [
        node.input(0),
        graph.add_constant(weights, "W"),
        graph.add_constant(recurrence, "R"),
        *(node.input(slot) for slot in range(3, 8)),
    ]
    attrs = {name: value for name, value in node.attrs.items() if name not in _OWN}
    made = graph.add(
        "LSTM", inputs, attrs, outputs=["" for _ in node.outputs], before=node, name=node.name,
        types=[value.type for value in node.outputs],
    )  # fmt: skip
    for old, new in zip(node.outputs, made.outputs, strict=True):
        give_way(graph, old, new)
    graph.remove(node)
    return True


def _real(node: Node, slot: int, scale_slot: int) -> Array | None:
    """The weights [directions, 4 * hidden, width] behind codes [directions, width, 4 * hidden]."""
    codes, scale, zero = (node.required(each) for each in (slot, scale_slot, scale_slot + 1))
    if codes.constant is None or scale.constant is None or zero.constant is None:
        return None
    factors, shifts = (_per_direction(each.constant) for each in (scale, zero))
    real = (codes.constant.astype(np.float32) - shifts.astype(np.float32)) * factors
    return np.ascontiguousarray(real.swapaxes(1, 2), np.float32)


def _per_direction(parameter: Array | None) -> Array:
    """A parameter of whole directions, or of each of their outputs, against [D, width, outputs]."""
    assert parameter is not None  # asked before
    if parameter.ndim == 2:
        return parameter[:, None, :]
    return parameter.reshape(-1, 1, 1)

"""DynamicQuantizeLSTM with known weights: one product of codes for all times, then the steps.

codes = DynamicQuantizeLinear(X)
parts = QMatMul(codes, W of all directions) * scale + biases
CodedLSTM(parts, R)
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node
from tuili.ops.contents import Contents
from tuili.ops.table import attributes
from tuili.passes.making import Making
from tuili.passes.quantized.parts import centred
from tuili.tensors import Array

LSTM = "com.microsoft::DynamicQuantizeLSTM"


def spell_dynamic_lstms(graph: Graph, contents: Contents) -> bool:
    """Rewrite every node whose weights, their parameters and biases are known."""
    changed = False
    for node in list(graph.nodes):
        if node.op == LSTM and all(_is_known(node, slot) for slot in (1, 2, 3, 8, 9, 10, 11)):
            _spell(Making(graph, node, contents), node)
            changed = True
    return changed


def _is_known(node: Node, slot: int) -> bool:
    value = node.input(slot)
    return value is None or value.constant is not None


def _spell(m: Making, node: Node) -> None:
    weights, factors = _coded(node, 1, 8)
    recurrence, recurrence_factors = _coded(node, 2, 10)
    codes, scale, zero = m.all("DynamicQuantizeLinear", node.required(0), outputs=3)
    row = factors.reshape(-1)
    row = row[0] if (row == row[0]).all() else row
    side_by_side = np.concatenate(list(weights), 1)
    parts = m("QMatMul", codes, side_by_side, zero, None, m("Mul", scale, row))
    bias = node.input(3)
    if bias is not None and bias.constant is not None:
        of_inputs, of_states = np.split(bias.constant.astype(np.float32), 2, axis=1)
        parts = m("Add", parts, (of_inputs + of_states).reshape(-1))
    attrs = {k: v for k, v in attributes(node).items() if v is not None and k != "layout"}
    states = [node.input(slot) for slot in range(4, 8)]
    given = [parts, recurrence, recurrence_factors, *states]
    made = m.all("CodedLSTM", *given, outputs=len(node.outputs), **attrs)
    m.replace(*made)


def _coded(node: Node, slot: int, scale_slot: int) -> tuple[Array, Array]:
    """Centred codes [D, width, outputs] and their scales [D, outputs]."""
    codes, scale, zero = (node.required(at).constant for at in (slot, scale_slot, scale_slot + 1))
    assert codes is not None  # asked before
    assert scale is not None
    assert zero is not None
    directions, _, outputs = codes.shape
    shift = _each_output(zero.astype(np.int32), directions, outputs)
    wide = codes.astype(np.int32) - shift[:, None]
    return centred(wide, None, 0), _each_output(scale.astype(np.float32), directions, outputs)


def _each_output(parameter: Array, directions: int, outputs: int) -> Array:
    """A number, one of each direction or one of each output, as [D, outputs]."""
    spread = parameter if parameter.ndim == 2 else parameter.reshape(-1, 1)
    return np.ascontiguousarray(np.broadcast_to(spread, (directions, outputs)))

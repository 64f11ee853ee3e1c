"""Affine folding: scales and shifts per channel move into the weights of convolutions.

BatchNormalization at inference is y = x * scale + shift per channel. After a convolution both
move into its weights and bias; alone they become Mul and Add, which fuse with their neighbours.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.tensors import Array, DType, numel


def split_batch_norm(graph: Graph) -> bool:
    """BatchNormalization with known statistics as Mul and Add."""
    found = [node for node in graph.nodes if node.op == "BatchNormalization" and _is_known(node)]
    for node in found:
        scale, shift = _scale_and_shift(node)
        rank = len(node.required(0).shape)
        shape = (1, -1, *(1,) * (rank - 2)) if rank > 1 else (-1,)
        x, type_ = node.required(0), node.output.type
        factor = graph.add_constant(scale.reshape(shape), f"{node.output.name}_scale")
        scaled = graph.add("Mul", [x, factor], types=[type_], before=node).output
        term = graph.add_constant(shift.reshape(shape), f"{node.output.name}_shift")
        shifted = graph.add("Add", [scaled, term], types=[type_], before=node, name=node.name)
        give_way(graph, node.output, shifted.output)
        graph.remove(node)
    return bool(found)


def _is_known(node: Node) -> bool:
    at_rest = not attr(node, "training_mode") and len(node.outputs) == 1
    known = all(node.required(slot).is_constant for slot in range(1, 5))
    return at_rest and known and node.output.dtype is DType.F32


def _scale_and_shift(node: Node) -> tuple[Array, Array]:
    scale, bias, mean, variance = (_double(node.required(slot)) for slot in range(1, 5))
    factor = scale / np.sqrt(variance + attr(node, "epsilon"))
    return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _double(value: Value) -> Array:
    assert value.constant is not None
    return value.constant.astype(np.float64)


def fold_into_weights(graph: Graph) -> bool:
    """conv(x) * scale and conv(x) + shift, when nothing else reads the convolution."""
    changed = False
    for node in list(graph.nodes):
        if node.graph is graph and node.op in ("Mul", "Div", "Add", "Sub"):
            changed |= _fold(graph, node)
    return changed


def _fold(graph: Graph, node: Node) -> bool:
    for slot in (0, 1):
        conv, other = node.required(slot).producer, node.required(1 - slot)
        if slot == 1 and node.op in ("Sub", "Div"):
            continue
        if conv is not None and _can_take(conv, other, node):
            _take(graph, conv, node, other)
            return True
    return False


def _can_take(conv: Node, other: Value, node: Node) -> bool:
    if conv.op not in ("Conv", "ConvTranspose") or "epilogue" in conv.attrs:
        return False
    bias = conv.input(2)
    known = conv.required(1).is_constant and (bias is None or bias.is_constant)
    alone = len(conv.output.uses) == 1 and not conv.output.is_output
    return known and alone and other.is_constant and _is_per_channel(other, conv.output, node)


def _is_per_channel(other: Value, result: Value, node: Node) -> bool:
    shape, rank = other.shape, len(result.shape)
    if node.output.shape != result.shape or other.dtype is not DType.F32:
        return False
    if numel(shape) == 1:
        return True
    padded = (1,) * (rank - len(shape)) + tuple(shape)
    return padded[1] == result.shape[1] == numel(shape)


def _take(graph: Graph, conv: Node, node: Node, other: Value) -> None:
    channels = conv.output.shape[1]
    assert isinstance(channels, int)
    term = np.broadcast_to(_double(other).reshape(-1), (channels,))
    weights = _double(conv.required(1))
    bias = np.zeros(channels) if conv.input(2) is None else _double(conv.required(2))
    if node.op in ("Mul", "Div"):
        factor = term if node.op == "Mul" else 1 / term
        weights, bias = _scaled(conv, weights, factor), bias * factor
    else:
        bias = bias + term if node.op == "Add" else bias - term
    name = conv.output.name
    conv.set_input(1, graph.add_constant(weights.astype(np.float32), f"{name}_w"))
    new_bias = graph.add_constant(bias.astype(np.float32), f"{name}_b")
    conv.set_inputs([conv.required(0), conv.required(1), new_bias])
    give_way(graph, node.output, conv.output)
    graph.remove(node)


def _scaled(conv: Node, weights: Array, factor: Array) -> Array:
    """Weights scaled per output channel: axis 0, or for ConvTranspose axis 1 within each group."""
    spatial = (1,) * (weights.ndim - 2)
    if conv.op == "Conv":
        return weights * factor.reshape(-1, 1, *spatial)
    groups = attr(conv, "group")
    inputs, outputs = weights.shape[:2]
    grouped = weights.reshape(groups, inputs // groups, outputs, *weights.shape[2:])
    return (grouped * factor.reshape(groups, 1, outputs, *spatial)).reshape(weights.shape)

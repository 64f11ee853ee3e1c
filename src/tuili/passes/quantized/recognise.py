"""Quantized graphs, in every form that exporters write them, become a few core operators.

What is left: QConv and QMatMul (`ops.quantized_products`), QuantizeLinear and DequantizeLinear as
elementwise operators that fuse with their neighbours, and movement of codes.
"""

from __future__ import annotations

from tuili.ir import Graph, Node
from tuili.ops.infer import infer
from tuili.passes.quantized.dynamic_lstm import spell_dynamic_lstms
from tuili.passes.quantized.integers import spell_integer_products
from tuili.passes.quantized.movement import move_codes
from tuili.passes.quantized.operators import spell_quantized_operators
from tuili.passes.quantized.products import name_quantized_products
from tuili.passes.quantized.scales import absorb_scales, drop_dead_clamps

KEPT = frozenset({"DequantizeLinear"})  # folded weights could not be told from real ones
MARKS = ("Quantize", "QLinear", "QGemm", "Integer", "QConv", "QMatMul")


def recognise_quantized(graph: Graph) -> bool:
    """Rewrite the quantized operators of a typed graph."""
    if not any(mark in node.op for node in graph.walk() for mark in MARKS):
        return False
    changed = False
    for graph_ in (graph, *_nested(graph)):
        changed |= spell_quantized_operators(graph_)
    contents = infer(graph)
    for graph_ in (graph, *_nested(graph)):
        changed |= spell_dynamic_lstms(graph_, contents)
    for step in (
        name_quantized_products,
        spell_integer_products,
        drop_dead_clamps,
        absorb_scales,
        move_codes,
    ):
        for graph_ in (graph, *_nested(graph)):
            changed |= step(graph_)
        infer(graph)
    return changed


def _nested(graph: Graph) -> list[Graph]:
    return [inner for node in graph.walk() for inner in node.graphs()]


def split_dequantize(graph: Graph) -> bool:
    """A DequantizeLinear for each reader, so that each can be fused into it."""
    changed = False
    for node in list(graph.nodes):
        if node.op != "DequantizeLinear" or node.output.is_output:
            continue
        for user, slot in list(node.output.uses)[1:]:
            if isinstance(user, Node) and user.graph is graph:
                user.set_input(slot, _copy(graph, node, user).output)
                changed = True
    return changed


def _copy(graph: Graph, node: Node, user: Node) -> Node:
    types = [node.output.type]
    return graph.add(node.op, node.inputs, node.attrs, types=types, name=node.name, before=user)

"""Movement between equal codes: DequantizeLinear, a move and QuantizeLinear become the move alone.

Reshape, Transpose, MaxPool and the like pick elements or the largest of them; when both sides have
the same scale and zero point, doing it with the codes gives the same codes, of a quarter the bytes.
"""

from __future__ import annotations

from tuili.ir import Graph, Node, TensorType, Value
from tuili.passes.fold import give_way
from tuili.passes.quantized.parts import Codes, codes_of, dequantized_from

FIRST = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "MaxPool", "Identity",
    "DepthToSpace", "SpaceToDepth", "Gather", "Expand",
}  # fmt: skip


def move_codes(graph: Graph) -> bool:
    """Rewrite every move whose sides have equal parameters."""
    changed = False
    for node in list(graph.nodes):
        if node.op == "QuantizeLinear" and (made := _moved(graph, node)) is not None:
            give_way(graph, node.output, made)
            graph.remove(node)
            changed = True
    return changed


def _moved(graph: Graph, node: Node) -> Value | None:
    wanted = codes_of(node.output, node.required(1), node.input(2))
    move = node.required(0).producer
    if wanted is None or move is None or move.graph is not graph or len(move.outputs) != 1:
        return None
    if move.op not in FIRST and move.op != "Concat":
        return None
    slots = range(len(move.inputs)) if move.op == "Concat" else (0,)
    sources = [dequantized_from(move.input(slot)) for slot in slots]
    known = [source for source in sources if source is not None and _are_equal(source, wanted)]
    if len(known) < len(sources):
        return None
    inputs = [known[slot].values if slot in slots else value
              for slot, value in enumerate(move.inputs)]  # fmt: skip
    types = [TensorType(node.output.dtype, move.output.shape)]
    made = graph.add(move.op, inputs, move.attrs, types=types, before=node, name=move.name)
    return made.output


def _are_equal(a: Codes, b: Codes) -> bool:
    if not (a.is_scalar and b.is_scalar) or a.values.dtype is not b.values.dtype:
        return False
    zeros = [0 if each.zero is None else int(each.zero.item()) for each in (a, b)]
    return zeros[0] == zeros[1] and bool(a.scale.item() == b.scale.item())

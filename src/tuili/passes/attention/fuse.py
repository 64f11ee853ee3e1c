"""Attention: matmul, scale, mask, softmax and matmul become one node, transposes around it too.

softmax(q @ k * scale + mask) @ v, heads in axis 1. The node reads and writes its operands in the
order of axes that they already have: `bhsd`, `bshd` (before the usual transpose of heads and
rows), or for keys `bhds` (already transposed for the matmul). PyTorch's exporter scales queries and
keys, turns keys flatly, and clears rows that see nothing: all of that is in the node, too.
"""

from __future__ import annotations

from tuili.ir import Graph, Node, Value
from tuili.ops.table import attr
from tuili.passes.attention.operands import ORDERS, before_sharing, keys_and_values, plain, unscaled
from tuili.passes.attention.scores import Scores, is_matmul, mask_of, only_use, scores_of
from tuili.passes.fold import give_way


def fuse_attention(graph: Graph) -> bool:
    """Fuse every softmax between two matmuls."""
    changed = False
    for node in list(graph.nodes):
        scores = _scores_of(node) if node.graph is graph and is_matmul(node) else None
        if scores is not None:
            _fuse(graph, node, scores)
            changed = True
        elif node.op == "FusedAttention":
            changed |= _share(node)
    return changed


def _share(node: Node) -> bool:
    """Let the node read the fewer heads that were repeated for it."""
    if (attr(node, "k_order"), attr(node, "v_order")) != ("bhsd", "bhsd"):
        return False
    before = before_sharing(node.required(1), node.required(2))
    if before is None:
        return False
    for slot, name, operand in ((1, "k_order", before[0]), (2, "v_order", before[1])):
        node.set_input(slot, operand.value)
        node.attrs[name] = operand.order
    return True


def _scores_of(node: Node) -> Scores | None:
    """The scores whose softmax is the first operand; None when there is no such thing."""
    softmax = _softmax_of(node.required(0))
    if softmax is None or attr(softmax, "axis") % 4 != 3:
        return None
    scores = scores_of(softmax.required(0))
    if scores is None:
        return None
    product = scores.product
    same_batch = product.required(0).shape[:2] == product.required(1).shape[:2]
    same_values = product.output.shape[:2] == node.required(1).shape[:2]
    return scores if same_batch and same_values else None


def _softmax_of(weights: Value) -> Node | None:
    """The softmax that makes the weights, or whose NaN, of rows that see nothing, become 0."""
    node = weights.producer
    if node is None or not only_use(weights):
        return None
    if node.op == "Softmax":
        return node
    if node.op != "Where":
        return None
    blank, odds = node.required(1).constant, node.required(2)
    test, softmax = node.required(0).producer, odds.producer
    is_zero = blank is not None and blank.size == 1 and not blank.any()
    if not is_zero or test is None or test.op != "IsNaN" or test.required(0) is not odds:
        return None
    alone = {user for user, _ in odds.uses} == {node, test} and not odds.is_output
    named = softmax is not None and softmax.op == "Softmax"
    return softmax if alone and named and only_use(test.output) else None


def _fuse(graph: Graph, node: Node, scores: Scores) -> None:
    left, left_scale = unscaled(scores.product.required(0))
    right, right_scale = unscaled(scores.product.required(1))
    q = plain(left)
    k, v = keys_and_values(right, node.required(1))
    last, y_order = _result(node)
    fused = graph.add(
        "FusedAttention",
        [q.value, k.value, v.value, mask_of(graph, scores, last)],
        {
            "scale": scores.scale * left_scale * right_scale,
            "q_order": q.order,
            "k_order": k.order,
            "v_order": v.order,
            "y_order": y_order,
        },
        outputs=[last.output.name],
        types=[last.output.type],
        name=scores.product.name,
        before=last,
    )
    give_way(graph, last.output, fused.output)


def _result(node: Node) -> tuple[Node, str]:
    """The node whose result is the attention's: the matmul, or a transpose right after it."""
    if only_use(node.output):
        (reader,) = node.output.users
        if reader.op == "Transpose" and reader.graph is node.graph:
            order = ORDERS.get(tuple(attr(reader, "perm") or (3, 2, 1, 0)))
            if order is not None:
                return reader, order
    return node, "bhsd"

"""Attention: matmul, scale, mask, softmax and matmul become one node, transposes around it too.

softmax(q @ k * scale + mask) @ v, heads in axis 1. The node reads and writes its operands in the
order of axes that they already have: `bhsd`, `bshd` (before the usual transpose of heads and
rows), or for keys `bhds` (already transposed for the matmul). PyTorch's exporter scales queries and
keys, turns keys flatly, and clears rows that see nothing: all of that is in the node, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuili.ir import Graph, Node, Value
from tuili.ops.table import attr
from tuili.passes.attention.operands import ORDERS, before_sharing, keys_and_values, plain, unscaled
from tuili.passes.fold import give_way
from tuili.tensors import DType, broadcast_dim


@dataclass(frozen=True, slots=True)
class _Scores:
    """q @ k * scale + mask."""

    product: Node
    scale: float
    mask: Value | None


def fuse_attention(graph: Graph) -> bool:
    """Fuse every softmax between two matmuls."""
    changed = False
    for node in list(graph.nodes):
        scores = _scores_of(node) if node.graph is graph and _is_matmul(node) else None
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


def _is_matmul(node: Node) -> bool:
    plain = node.op == "MatMul" and len(node.inputs) <= 3 and node.input(2) is None
    operands = (node.required(0), node.required(1)) if plain else ()
    return plain and all(v.dtype is DType.F32 and len(v.tensor.shape or ()) == 4 for v in operands)


def _only_use(value: Value) -> bool:
    return len(value.uses) == 1 and not value.is_output


def _scores_of(node: Node) -> _Scores | None:
    """The scores whose softmax is the first operand; None when there is no such thing."""
    softmax = _softmax_of(node.required(0))
    if softmax is None:
        return None
    if attr(softmax, "axis") % 4 != 3:
        return None
    value, mask = _masked(softmax.required(0))
    value, scale = _scaled(value)
    product = value.producer
    if product is None or not _is_matmul(product) or not _only_use(value):
        return None
    if mask is not None and not _broadcasts(mask, product.output):
        return None
    same_batch = product.required(0).shape[:2] == product.required(1).shape[:2]
    same_values = product.output.shape[:2] == node.required(1).shape[:2]
    return _Scores(product, scale, mask) if same_batch and same_values else None


def _softmax_of(weights: Value) -> Node | None:
    """The softmax that makes the weights, or whose NaN, of rows that see nothing, become 0."""
    node = weights.producer
    if node is None or not _only_use(weights):
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
    return softmax if alone and named and _only_use(test.output) else None


def _masked(value: Value) -> tuple[Value, Value | None]:
    node = value.producer
    if node is None or node.op != "Add" or not _only_use(value):
        return value, None
    left, right = node.required(0), node.required(1)
    return (left, right) if _is_product(left) else (right, left)


def _is_product(value: Value) -> bool:
    """Whether the value is a matmul's result, scaled or not."""
    inner, _ = _scaled(value)
    return inner.producer is not None and inner.producer.op == "MatMul"


def _scaled(value: Value) -> tuple[Value, float]:
    return unscaled(value) if _only_use(value) else (value, 1.0)


def _broadcasts(mask: Value, scores: Value) -> bool:
    """Whether the mask is f32 and every axis of it is 1 or that of the scores."""
    if mask.dtype is not DType.F32 or mask.tensor.shape is None or len(mask.shape) > 4:
        return False
    wanted = scores.shape[4 - len(mask.shape) :]
    return all(broadcast_dim(a, b) == b for a, b in zip(mask.shape, wanted, strict=True))


def _fuse(graph: Graph, node: Node, scores: _Scores) -> None:
    left, left_scale = unscaled(scores.product.required(0))
    right, right_scale = unscaled(scores.product.required(1))
    q = plain(left)
    k, v = keys_and_values(right, node.required(1))
    last, y_order = _result(node)
    fused = graph.add(
        "FusedAttention",
        [q.value, k.value, v.value, scores.mask],
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
    if _only_use(node.output):
        (reader,) = node.output.users
        if reader.op == "Transpose" and reader.graph is node.graph:
            order = ORDERS.get(tuple(attr(reader, "perm") or (3, 2, 1, 0)))
            if order is not None:
                return reader, order
    return node, "bhsd"

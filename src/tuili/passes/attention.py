"""Attention: matmul, scale, mask, softmax and matmul become one node, transposes around it too.

softmax(q @ k * scale + mask) @ v, heads in axis 1. The node reads and writes its operands in the
order of axes that they already have: `bhsd`, `bshd` (before the usual transpose of heads and
rows), or for keys `bhds` (already transposed for the matmul).
"""

from __future__ import annotations

from dataclasses import dataclass

from tuili.ir import Graph, Node, Value
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.tensors import DType, broadcast_dim

ORDERS: dict[tuple[int, ...], str] = {(0, 2, 1, 3): "bshd", (0, 1, 2, 3): "bhsd"}
KEY_ORDERS: dict[tuple[int, ...], str] = {(0, 2, 3, 1): "bshd", (0, 1, 3, 2): "bhsd"}


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
    return changed


def _is_matmul(node: Node) -> bool:
    plain = node.op == "MatMul" and len(node.inputs) <= 3 and node.input(2) is None
    operands = (node.required(0), node.required(1)) if plain else ()
    return plain and all(v.dtype is DType.F32 and len(v.tensor.shape or ()) == 4 for v in operands)


def _only_use(value: Value) -> bool:
    return len(value.uses) == 1 and not value.is_output


def _scores_of(node: Node) -> _Scores | None:
    """The scores whose softmax is the first operand; None when there is no such thing."""
    weights = node.required(0)
    softmax = weights.producer
    if softmax is None or softmax.op != "Softmax" or not _only_use(weights):
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
    node = value.producer
    if node is None or node.op not in ("Mul", "Div") or not _only_use(value):
        return value, 1.0
    operands = [node.required(0), node.required(1)]
    if node.op == "Mul" and operands[0].is_constant:
        operands.reverse()
    factor = operands[1].constant
    if factor is None or factor.size != 1:
        return value, 1.0
    number = float(factor.reshape(()))
    return operands[0], number if node.op == "Mul" else 1 / number


def _broadcasts(mask: Value, scores: Value) -> bool:
    """Whether the mask is f32 and every axis of it is 1 or that of the scores."""
    if mask.dtype is not DType.F32 or mask.tensor.shape is None or len(mask.shape) > 4:
        return False
    wanted = scores.shape[4 - len(mask.shape) :]
    return all(broadcast_dim(a, b) == b for a, b in zip(mask.shape, wanted, strict=True))


def _untransposed(
    value: Value, orders: dict[tuple[int, ...], str], default: str
) -> tuple[Value, str]:
    node = value.producer
    if node is not None and node.op == "Transpose":
        order = orders.get(tuple(attr(node, "perm") or (3, 2, 1, 0)))
        if order is not None:
            return node.required(0), order
    return value, default


def _fuse(graph: Graph, node: Node, scores: _Scores) -> None:
    q, q_order = _untransposed(scores.product.required(0), ORDERS, "bhsd")
    k, k_order = _untransposed(scores.product.required(1), KEY_ORDERS, "bhds")
    v, v_order = _untransposed(node.required(1), ORDERS, "bhsd")
    last, y_order = _result(node)
    fused = graph.add(
        "FusedAttention",
        [q, k, v, scores.mask],
        {
            "scale": scores.scale,
            "q_order": q_order,
            "k_order": k_order,
            "v_order": v_order,
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

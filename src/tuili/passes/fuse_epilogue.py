"""Epilogue fusion: elementwise work on the result of a convolution or matmul joins its store.

What follows the result `r` of an anchor is taken up step by step: the smallest set of elementwise
nodes through which every use of `r` passes and of which one value leaves (`x * sigmoid(x)` is such
a set), as long as every other operand is one element, one per channel, or of the shape of `r`.
"""

from __future__ import annotations

from tuili.ir import Graph, Node, Value
from tuili.passes.body import Body, is_elementwise, is_in_vectors
from tuili.passes.quantized.parts import BYTES
from tuili.tensors import DType, numel

CODES = "com.microsoft::MatMulNBits"
OWN_SLOTS = {
    "Conv": 3, "ConvTranspose": 3, "EachChannelOfFrames": 4, "MatMul": 3, "QConv": 5, "QMatMul": 5,
    CODES: 6,
}  # fmt: skip
QUANTIZED = ("QConv", "QMatMul")  # their kernels store bytes, too
PER_COLUMN = ("MatMul", "QMatMul", CODES)
MOST_NODES = 12  # in one set; longer chains are taken up set by set


def fuse_epilogues(graph: Graph) -> bool:
    """Fuse what follows every anchor."""
    changed = False
    for anchor in [node for node in graph.nodes if node.op in OWN_SLOTS]:
        while anchor.graph is graph and (region := _region(anchor)):
            anchor = _absorb(graph, anchor, region)  # noqa: PLW2901 - the anchor grows
            changed = True
    return changed


def _region(anchor: Node) -> list[Node] | None:
    """The smallest set after the anchor that one value leaves, in order; None if it cannot fuse."""
    result = anchor.output
    if not _may_store(result, anchor) or result.is_output or anchor.graph is None:
        return None
    region: list[Node] = []
    inside: set[Value] = {result}
    while len(region) < MOST_NODES:
        if region and _is_closed(inside - {region[-1].output}, region) and _is_end(region, anchor):
            return region
        open_users = {user for value in inside for user in value.users} - set(region)
        ready = [user for user in open_users if user.graph is anchor.graph]
        if len(ready) < len(open_users) or not ready:
            return None
        node = min(ready, key=anchor.graph.nodes.index)
        if not _fits(node, anchor, inside):
            return None
        region.append(node)
        inside.add(node.output)
    return None


def _may_store(value: Value, anchor: Node) -> bool:
    """Whether the anchor's kernels store elements of the value's type."""
    return value.dtype is DType.F32 or (anchor.op in QUANTIZED and value.dtype in BYTES)


def _is_end(region: list[Node], anchor: Node) -> bool:
    """Codes become real numbers again only on the way to other codes: those take less memory."""
    return anchor.output.dtype is DType.F32 or region[-1].output.dtype in BYTES


def _is_closed(inner: set[Value], region: list[Node]) -> bool:
    """Whether nothing outside the region reads the inner values."""
    return all(user in region for value in inner for user, _ in value.uses)


def _fits(node: Node, anchor: Node, inside: set[Value]) -> bool:
    result = anchor.output
    if not is_elementwise(node) or node.output.shape != result.shape:
        return False
    if not _may_store(node.output, anchor) or not is_in_vectors(node):
        return False
    outer = [value for value in node.inputs if value is not None and value not in inside]
    return all(_is_operand(value, anchor) for value in outer)


def _is_operand(value: Value, anchor: Node) -> bool:
    """Whether a kernel can read the operand beside its result."""
    result = anchor.output
    if value.tensor.shape is None or not _may_store(value, anchor):
        return False
    if numel(value.shape) == 1:
        return len(value.shape) <= len(result.shape)
    if anchor.op in PER_COLUMN:
        per_column = numel(value.shape) == result.shape[-1] == value.shape[-1]
        return value.shape == result.shape or per_column
    if value.is_constant:
        return _is_per_channel(value, result)
    return value.shape == result.shape


def _is_per_channel(value: Value, result: Value) -> bool:
    shape, rank = value.shape, len(result.shape)
    padded = (1,) * (rank - len(shape)) + tuple(shape)
    return len(padded) == rank and padded[1] == result.shape[1] == numel(shape)


def _absorb(graph: Graph, anchor: Node, region: list[Node]) -> Node:
    """The anchor with the region in its epilogue, placed where the region ended."""
    own = OWN_SLOTS[anchor.op]
    epilogue = anchor.attrs.get("epilogue")
    slots = [anchor.input(index) for index in range(own)]
    extra = [value for value in anchor.inputs[own:] if value is not None]
    if isinstance(epilogue, Graph):
        body = Body(epilogue, [anchor.output, *extra])
        body.bind(anchor.output, epilogue.outputs[0])
    else:
        body = Body()
        body.operand(anchor.output)
    if anchor.op in QUANTIZED:
        _decode_within(body, region)
    for node in region:
        body.copy(node)
    last = region[-1]
    body.graph.set_outputs([body.operand(last.output)])
    merged = graph.add(
        anchor.op,
        [*slots, *body.operands[1:]],
        {**anchor.attrs, "epilogue": body.graph},
        outputs=[last.output.name],
        types=[last.output.type],
        name=anchor.name,
        after=last,
    )
    name = last.output.name
    graph.replace_uses(last.output, merged.output)
    anchor.attrs.pop("epilogue", None)
    graph.remove([anchor, *region])
    graph.rename(merged.output, name)
    return merged


def _decode_within(body: Body, region: list[Node]) -> None:
    """Operands that are decoded codes are read as codes."""
    for value in {value: None for node in region for value in node.inputs}:
        coded = None if value is None else value.producer
        if coded is not None and coded not in region and _decodes(coded):
            body.copy(coded)


def _decodes(node: Node) -> bool:
    return (
        node.op == "DequantizeLinear" and is_elementwise(node) and node.required(0).dtype in BYTES
    )

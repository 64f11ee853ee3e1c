"""Images apart: where a batch's activations would leave the cache, one image after the other.

Neighbouring nodes that treat every image of a batch alone become the body of an `EachImage`: what
one of them writes for an image is still in the cache when the next reads it, and memory is needed
for one image. Each image reads the weights again, so only parts gain whose images outweigh them:
the first layers of a convolutional network, not its last.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.images import of_one
from tuili.ops.table import attr
from tuili.passes.fuse_epilogue import OWN_SLOTS
from tuili.tensors import Dim, numel, symbols_of

CACHE_BYTES = 512 << 10  # of a core
BATCH = 8  # of an open batch, to weigh by
CALL_BYTES = 4 << 10  # moving so much costs what a kernel's call does

Slots: TypeAlias = "tuple[int, ...] | None"


def each_image(graph: Graph) -> bool:
    """Make loops over images of the parts that gain by it."""
    bound = {name for value in graph.inputs for name in _symbols(value)}
    slots = {node: slots_of(node, bound) for node in graph.nodes}
    parts = [_best(run) for run in _runs(graph.nodes, slots)]
    for part in parts:
        _move(graph, part, slots)
    return any(parts)


def _symbols(value: Value) -> set[str]:
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    return {name for dim in shape or () for name in symbols_of(dim)}


# -- which nodes -------------------------------------------------------------------------------


def slots_of(node: Node, bound: set[str]) -> Slots:
    """The inputs whose first axis counts images, if the node treats every image alone."""
    rule = RULES.get(node.op)
    if rule is None or len(node.outputs) != 1 or not _has_images(node.output, bound):
        return None
    found = rule(node)
    batch = node.output.shape[0]
    fits = found and all(_is_of(node.input(slot), batch, bound) for slot in found)
    return found if fits else None


def _has_images(value: Value, bound: set[str]) -> bool:
    """Whether there is a batch of images of known size, whose number is known before the run."""
    type_ = value.type
    if not isinstance(type_, TensorType) or not type_.shape or len(type_.shape) < 2:
        return False
    batch, *image = type_.shape
    return batch != 1 and symbols_of(batch) <= bound and all(isinstance(dim, int) for dim in image)


def _is_of(value: Value | None, batch: Dim, bound: set[str]) -> bool:
    """Whether a value is such a batch of so many images, and no constant."""
    if value is None or value.is_constant or not _has_images(value, bound):
        return False
    return value.shape[0] == batch


def _first(node: Node) -> Slots:
    return (0,)


def _windows(node: Node) -> Slots:
    """Weights must be constants; what an epilogue reads broadcasts."""
    own = OWN_SLOTS.get(node.op, 1)
    others = [node.input(slot) for slot in range(1, own)]
    if not all(value is None or value.is_constant for value in others):
        return None
    return _spread(node, (0,), range(own, len(node.inputs)))


def _elementwise(node: Node) -> Slots:
    return _spread(node, (), range(len(node.inputs)))


def _spread(node: Node, first: tuple[int, ...], slots: range) -> Slots:
    """`first`, and which of the operands that broadcast to the output have its first axis."""
    rank = len(node.output.shape)
    given = [(slot, node.input(slot)) for slot in slots]
    shapes = [(slot, value.shape) for slot, value in given if value is not None]
    if any(len(shape) > rank for _, shape in shapes):
        return None
    whole = (slot for slot, shape in shapes if len(shape) == rank and shape[0] != 1)
    return (*first, *whole)


def _codes(node: Node) -> Slots:
    """A scale of its own for each image stands in a row that is not cut."""
    own = node.required(1).shape and attr(node, "axis") % len(node.output.shape) == 0
    return None if own else _elementwise(node)


def _concat(node: Node) -> Slots:
    whole = tuple(range(len(node.inputs)))
    return whole if attr(node, "axis") % len(node.output.shape) else None


def _transpose(node: Node) -> Slots:
    perm = attr(node, "perm")
    return (0,) if perm and perm[0] == 0 else None


def _resize(node: Node) -> Slots:
    """Sizes in pixels name the batch; factors do not change it."""
    roi, scales, sizes = (node.input(slot) for slot in (1, 2, 3))
    factors = None if scales is None else scales.constant
    plain = sizes is None and (roi is None or roi.is_constant) and attr(node, "axes") is None
    return (0,) if plain and factors is not None and factors.size and factors[0] == 1 else None


def _view(node: Node) -> Slots:
    return (0,) if node.required(0).shape[:1] == node.output.shape[:1] else None


RULES: dict[str, Callable[[Node], Slots]] = {
    # `EachChannelOfFrames` is none of them: its windows reach into the pictures beside each.
    **dict.fromkeys(("Conv", "QConv", "ConvTranspose"), _windows),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _windows),
    **dict.fromkeys(("Reorder", "DepthToSpace", "SpaceToDepth", "InstanceNormalization"), _first),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _view),
    **dict.fromkeys(
        ("Fused", "Add", "Sub", "Mul", "Div", "Max", "Min", "Relu", "Clip", "Sigmoid", "Tanh",
         "Elu", "Pow", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Gelu", "Erf", "Exp",
         "Sqrt", "Abs", "Neg"),
        _elementwise,
    ),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _codes),
    "Concat": _concat,
    "Transpose": _transpose,
    "Resize": _resize,
}  # fmt: skip


# -- which parts -------------------------------------------------------------------------------


def _runs(nodes: list[Node], slots: dict[Node, Slots]) -> list[list[Node]]:
    """Neighbours that treat the images of batches of one size alone."""
    runs: list[list[Node]] = [[]]
    for node in nodes:
        last = runs[-1]
        if slots[node] is None or (last and last[-1].output.shape[0] != node.output.shape[0]):
            runs.append([])
        if slots[node] is not None:
            runs[-1].append(node)
    return runs


def _best(run: list[Node]) -> list[Node]:
    """The part of a run that gains most, if that is worth a loop."""
    sums = [0, *accumulate(map(_gain, run))]
    spans = [(sums[end] - low, start, end) for low, start, end in _lowest(sums)]
    gain, start, end = max(spans, default=(0, 0, 0))
    return run[start:end] if gain > CACHE_BYTES and end - start > 1 else []


def _lowest(sums: list[int]) -> list[tuple[int, int, int]]:
    """For every end the start before it where the sum was lowest."""
    found: list[tuple[int, int, int]] = []
    low = 0
    for end in range(1, len(sums)):
        low = end - 1 if sums[end - 1] < sums[low] else low
        found.append((sums[low], low, end))
    return found


def _gain(node: Node) -> int:
    """The bytes of an image that stay in the cache, less those of the weights read again."""
    values = {value for value in node.inputs if value is not None}
    weights = sum(_bytes(value) for value in values if value.is_constant)
    image = sum(_bytes(value) for value in (*values, node.output) if not value.is_constant)
    batch = node.output.shape[0]
    stays = image * (batch if isinstance(batch, int) else BATCH) < CACHE_BYTES
    return (0 if stays else image) - weights - CALL_BYTES


def _bytes(value: Value) -> int:
    """Of a constant, or of one image."""
    shape = value.shape if value.is_constant else value.shape[1:]
    size = numel(shape)
    return size * value.dtype.itemsize if isinstance(size, int) else 0


# -- the loop ----------------------------------------------------------------------------------


def _move(graph: Graph, part: list[Node], slots: dict[Node, Slots]) -> None:
    """Copy nodes into the body of an `EachImage` in their place."""
    if not part:
        return
    inside = set(part)
    body = Graph("image", graph)
    whole = [node.required(slot) for node in part for slot in slots[node] or ()]
    read = list(dict.fromkeys(value for value in whole if value.producer not in inside))
    made = [node.output for node in part]
    left = [value for value in made if any(user not in inside for user, _ in value.uses)]
    inner = {value: body.add_input(f"{value.name}_image", of_one(value.tensor)) for value in read}
    for node in part:
        inner[node.output] = _copy(node, slots[node] or (), inner, graph, body)
    body.set_outputs([inner[value] for value in left])
    names = [value.name for value in left]
    loop = graph.add(
        "EachImage",
        read,
        {"body": body},
        outputs=names,
        types=[value.type for value in left],
        name=part[0].name,
        before=part[0],
    )
    for value, new in zip(left, loop.outputs, strict=True):
        graph.replace_uses(value, new)
    graph.remove(part)
    for name, new in zip(names, loop.outputs, strict=True):
        graph.rename(new, name)


def _copy(
    node: Node, slots: tuple[int, ...], inner: dict[Value, Value], graph: Graph, body: Graph
) -> Value:
    inputs = [inner[value] if value and slot in slots else value
              for slot, value in enumerate(node.inputs)]  # fmt: skip
    attrs, node.attrs = node.attrs, {}  # graphs nested in it move with their node
    op, type_ = node.op, of_one(node.output.tensor)
    if RULES[op] is _view:
        op, attrs = "Reshape", {}
        shape = np.array(type_.shape, np.int64)
        inputs = [inputs[0], graph.add_constant(shape, f"{node.output.name}_shape")]
    name = f"{node.output.name}_image"
    return body.add(op, inputs, attrs, outputs=[name], types=[type_], name=node.name).output

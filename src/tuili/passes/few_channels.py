"""Few channels: convolutions whose output channels would leave most of a vector idle.

    y[oc, h, r*w + j] = sum over k of weights[oc, k] * x[stride * (r*w + j) + k]

Neighbouring columns are computed as channels: `r` shifted copies of the weights side by side, in a
kernel that is (r - 1) * stride wider, moved r * stride columns at a time. One channel of 16 lanes
becomes 16 columns of 16 lanes; the result is put back in order by a transposition.

A transposed convolution whose windows do not overlap, with few outputs for each input, is a 1x1
convolution to one channel for each place in the window, put back in order by DepthToSpace.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.ops.contents import Contents
from tuili.ops.infer import infer_node
from tuili.ops.table import attr
from tuili.passes.fold import give_way
from tuili.tensors import Array, DType, evaluate, numel, symbols_of

WORTHWHILE = 0.7  # of the work before; moving the result back is not free
FEW_FLOPS = 2_000_000  # below this the convolution is over before the vector is full
FEW_INPUTS = 4  # images of so few channels stay plain
OWN_SLOTS = 3


# -- convolutions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """A convolution along its last axis, and how many columns become channels."""

    channels: int
    kernel: int
    stride: int
    width: int  # of the input
    columns: int  # of the output
    before: int  # padding
    together: int

    @property
    def wide_kernel(self) -> int:
        """The kernel that covers all columns computed together."""
        return self.kernel + (self.together - 1) * self.stride

    def work(self, block: int) -> float:
        """Multiplications for each column and kernel row, lanes of whole vectors counted."""
        lanes = -(-self.channels * self.together // block) * block
        return lanes * self.wide_kernel / self.together


def widen_few_channels(graph: Graph, block: int) -> bool:
    """Rewrite every convolution that gains by it."""
    changed = False
    for node in list(graph.nodes):
        if node.op == "Conv" and _is_plain(node) and (shape := _best(node, block)):
            _widen(graph, node, shape)
            changed = True
    return changed


def _is_plain(node: Node) -> bool:
    x, weights = node.required(0), node.required(1)
    if x.tensor.shape is None:
        return False
    spatial = len(x.shape) - 2
    known = weights.is_constant and isinstance(x.shape[-1], int)
    simple = attr(node, "group") == 1 and attr(node, "auto_pad") in ("NOTSET", "VALID")
    dense = (attr(node, "dilations") or (1,) * spatial)[-1] == 1
    if not (known and simple and dense and node.output.dtype is DType.F32 and spatial == 2):
        return False
    extra = [value for value in node.inputs[2:] if value is not None]
    return all(_is_repeatable(value, weights.shape[0]) for value in extra)


def _is_repeatable(value: Value, channels: object) -> bool:
    return value.is_constant and (numel(value.shape) in (1, channels))


def _best(node: Node, block: int) -> _Shape | None:
    weights = node.required(1).constant
    assert weights is not None
    channels, kernel = weights.shape[0], weights.shape[-1]
    strides, pads = _strides(node), _pads(node)
    width, columns = node.required(0).shape[-1], node.output.shape[-1]
    assert isinstance(width, int)
    if 2 * channels > block or not isinstance(columns, int) or _is_summed_by_lanes(node, channels):
        return None
    # Winograd does better on these.
    if weights.shape[2:] == (3, 3) and strides == (1, 1):
        return None
    sizes = [1 << power for power in range(1, 6) if channels << power <= block]
    shapes = [
        _Shape(channels, kernel, strides[-1], width, columns, pads[1], together)
        for together in sizes
        if together <= columns
    ]
    base = _Shape(channels, kernel, strides[-1], width, columns, pads[1], 1).work(block)
    best = min(shapes, key=lambda shape: shape.work(block), default=None)
    if best is None or best.work(block) > WORTHWHILE * base:
        return None
    return best if _flops(node, weights, block) >= FEW_FLOPS else None


def _is_summed_by_lanes(node: Node, channels: int) -> bool:
    """One output of many inputs: a kernel of its own has the inputs in the lanes."""
    inputs = node.required(0).shape[1]
    return channels == 1 and isinstance(inputs, int) and inputs > FEW_INPUTS


def _flops(node: Node, weights: Array, block: int) -> int:
    places = numel((node.output.shape[0], *node.output.shape[2:]))
    known = evaluate(places, dict.fromkeys(symbols_of(places), 1))
    return 2 * known * block * prod(weights.shape[1:])


def _strides(node: Node) -> tuple[int, ...]:
    return attr(node, "strides") or (1, 1)


def _pads(node: Node) -> tuple[int, ...]:
    return attr(node, "pads") or (0, 0, 0, 0)


def _widen(graph: Graph, node: Node, shape: _Shape) -> None:
    contents = Contents(graph.metadata)
    together, name = shape.together, node.output.name
    step = shape.stride * together
    groups = -(-shape.columns // together)
    behind = max(0, (groups - 1) * step + shape.wide_kernel - shape.width - shape.before)
    groups = (shape.width + shape.before + behind - shape.wide_kernel) // step + 1
    top, left, bottom, _ = _pads(node)
    attrs = {
        **node.attrs,
        "kernel_shape": (node.required(1).shape[-2], shape.wide_kernel),
        "strides": (_strides(node)[0], step),
        "pads": (top, left, bottom, behind),
    }
    bias = node.input(2)
    rest = [_columns(graph, bias, together) if bias else None]
    rest += [_repeated(graph, value, shape) for value in node.inputs[OWN_SLOTS:]]
    weights = graph.add_constant(_shifted(node, shape), f"{name}_w")
    wide = graph.add("Conv", [node.required(0), weights, *rest], attrs, name=node.name, before=node)
    batch, _, height, _ = node.output.shape
    split = (batch, shape.channels, together, height, groups)
    joined = (batch, shape.channels, height, groups * together)
    made = [wide, _reshape(graph, wide.output, split, node)]
    made.append(graph.add("Transpose", [made[-1].output], {"perm": (0, 1, 3, 4, 2)}, before=node))
    made.append(_reshape(graph, made[-1].output, joined, node))
    if groups * together > shape.columns:
        ends = [graph.add_constant(np.array([n], np.int64)) for n in (0, shape.columns, 3)]
        made.append(graph.add("Slice", [made[-1].output, *ends], before=node))
    for each in made:
        infer_node(each, contents)
    give_way(graph, node.output, made[-1].output)
    node.attrs.pop("epilogue", None)  # it lives on in the new node
    graph.remove(node)


def _reshape(graph: Graph, value: Value, shape: tuple[object, ...], before: Node) -> Node:
    """A Reshape that keeps the axis of the batch, which may be unknown."""
    sizes = [0 if axis == 0 else size for axis, size in enumerate(shape)]
    unknown = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    for axis in unknown:
        sizes[axis] = -1
    target = graph.add_constant(np.array(sizes, np.int64), "shape")
    return graph.add("Reshape", [value, target], before=before)


def _shifted(node: Node, shape: _Shape) -> Array:
    """Output channel (oc, j) holds the weights of `oc`, j strides to the right."""
    weights = node.required(1).constant
    assert weights is not None
    wide = np.zeros(
        (shape.channels, shape.together, *weights.shape[1:-1], shape.wide_kernel), np.float32
    )
    for column in range(shape.together):
        start = column * shape.stride
        wide[:, column, ..., start : start + shape.kernel] = weights
    return wide.reshape(-1, *wide.shape[2:])


def _repeated(graph: Graph, value: Value | None, shape: _Shape) -> Value | None:
    """An epilogue's operand for each channel, for each of its columns."""
    if value is None or value.constant is None or value.constant.size == 1:
        return value
    flat = _columns(graph, value, shape.together)
    assert flat.constant is not None
    return graph.add_constant(flat.constant.reshape(-1, 1, 1), f"{value.name}_columns")


def _columns(graph: Graph, value: Value, together: int) -> Value:
    assert value.constant is not None
    flat = value.constant.reshape(-1).repeat(together)
    return graph.add_constant(flat, f"{value.name}_columns")


# -- transposed convolutions -------------------------------------------------------------------


def split_transposed(graph: Graph, block: int) -> bool:
    """Rewrite every transposed convolution whose windows are disjoint and fit a vector."""
    changed = False
    for node in list(graph.nodes):
        if node.op == "ConvTranspose" and _is_disjoint(node, block):
            _split(graph, node)
            changed = True
    return changed


def _is_disjoint(node: Node, block: int) -> bool:
    weights, bias = node.required(1).constant, node.input(2)
    if weights is None or weights.ndim != 4 or "epilogue" in node.attrs:
        return False
    _, channels, height, width = weights.shape
    if _is_summed_by_lanes(node, channels):
        return False
    simple = attr(node, "group") == 1 and attr(node, "auto_pad") in ("NOTSET", "VALID")
    exact = not any((*_pads(node), *(attr(node, "output_padding") or ())))
    dense = set(attr(node, "dilations") or (1,)) == {1} and not attr(node, "output_shape")
    return (
        (simple and exact and dense and height == width and height > 1)
        and _strides(node) == (height, width)
        and channels * height * width <= block
        and node.output.dtype is DType.F32
        and (bias is None or bias.is_constant)
    )


def _split(graph: Graph, node: Node) -> None:
    weights, bias = node.required(1).constant, node.input(2)
    assert weights is not None
    inputs, size, name = weights.shape[0], weights.shape[-1], node.output.name
    # Channel (oc, i, j), which is the order of DepthToSpace in mode CRD.
    columns = np.ascontiguousarray(weights.reshape(inputs, -1).T)
    operands: list[Value | None] = [
        node.required(0),
        graph.add_constant(columns.reshape(-1, inputs, 1, 1), f"{name}_w"),
    ]
    if bias is not None and bias.constant is not None:
        operands.append(graph.add_constant(bias.constant.repeat(size * size), f"{name}_b"))
    conv = graph.add("Conv", operands, name=node.name, before=node)
    attrs = {"blocksize": size, "mode": "CRD"}
    made = graph.add("DepthToSpace", [conv.output], attrs, name=node.name, before=node)
    contents = Contents(graph.metadata)
    infer_node(conv, contents)
    infer_node(made, contents)
    give_way(graph, node.output, made.output)
    graph.remove(node)

"""Scales of results move up into what computes them: QuantizeLinear is left with the scale 1.

QuantizeLinear(f(x), s) = QuantizeLinear(f(x / s), 1) where f commutes with a positive factor: sums,
maxima, means, movement. The factor ends in the multiplier of a product or the scale of another
DequantizeLinear, where it costs nothing; a division of every element would not.
"""

from __future__ import annotations

import numpy as np

from tuili.ir import Graph, Node, Value
from tuili.passes.quantized.parts import dequantized_from
from tuili.tensors import Array, DType

PRODUCTS = {"QConv", "QMatMul"}
# f(c * x) = c * f(x); the slots that take the factor.
FIRST = {
    "Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "ReduceMean", "ReduceMax", "Slice",
    "DepthToSpace", "SpaceToDepth", "Gather", "Expand", "Identity",
}  # fmt: skip
EVERY = {"Add", "Sub", "Max", "Min", "Concat", "Sum", "Mean"}
ONE_OF = {"Mul", "Div"}  # the first operand takes it


def absorb_scales(graph: Graph) -> bool:
    """Rewrite every QuantizeLinear of one scale whose input can take the factor."""
    changed = False
    for node in list(graph.nodes):
        if node.op == "QuantizeLinear" and (factor := _factor(node)) is not None:
            source = node.required(0)
            if _takes(source, node):
                node.set_input(0, _scaled(graph, source, factor, node))
                node.set_input(1, graph.add_constant(np.array(1, np.float32), "scale"))
                changed = True
    return changed


def _factor(node: Node) -> np.float64 | None:
    """One over the scale, unless it is 1 already."""
    scale = node.required(1).constant
    if scale is None or scale.size != 1 or scale.dtype != np.float32 or float(scale.item()) == 1:
        return None
    return np.float64(1) / np.float64(scale.item())


def _takes(value: Value, user: Node) -> bool:
    """Whether the factor can move into what computes the value."""
    if value.constant is not None:
        return value.dtype is DType.F32
    node = value.producer
    if node is None or node.graph is not user.graph or value.dtype is not DType.F32:
        return False
    if dequantized_from(value) is not None:
        return True
    if value.is_output or set(value.users) != {user} or len(node.outputs) != 1:
        return False
    if node.op in PRODUCTS:
        multiplier = node.input(4)
        return "epilogue" not in node.attrs and multiplier is not None and multiplier.is_constant
    return all(_takes(each, node) for each in _takers(node)) and bool(_takers(node))


def _takers(node: Node) -> list[Value]:
    """The inputs that take the factor; none where the operator does not commute with it."""
    given = [value for value in node.inputs if value is not None]
    if node.op in FIRST or node.op in ONE_OF:
        # A square would take the factor twice.
        return [] if given[0] in given[1:] else given[:1]
    known = all(value.is_constant for value in given[1:])
    return given if node.op in EVERY or (node.op == "Clip" and known) else []


def _scaled(graph: Graph, value: Value, factor: np.float64, user: Node) -> Value:
    """The value times the factor, for one reader."""
    if value.constant is not None:
        return graph.add_constant(_times(value.constant, factor), f"{value.name}_scaled")
    node = value.producer
    assert node is not None  # _takes
    codes = dequantized_from(value)
    if codes is not None:
        scale = graph.add_constant(_times(codes.scale, factor), "scale")
        inputs = [codes.values, scale, node.input(2)]
        types = [value.type]
        return graph.add("DequantizeLinear", inputs, node.attrs, types=types, before=user).output
    if node.op in PRODUCTS:
        multiplier = node.required(4).constant
        assert multiplier is not None
        node.set_input(4, graph.add_constant(_times(multiplier, factor), "multiplier"))
        return value
    takers = _takers(node)
    replaced = {each: _scaled(graph, each, factor, node) for each in dict.fromkeys(takers)}
    node.set_inputs([replaced.get(each, each) if each else None for each in node.inputs])
    return value


def _times(array: Array, factor: np.float64) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):  # scales that are no numbers stay so
        return (array.astype(np.float64) * factor).astype(np.float32)


def drop_dead_clamps(graph: Graph) -> bool:
    """Relu and Clip in front of QuantizeLinear that its own limits make: nothing passes twice."""
    changed = False
    for node in list(graph.nodes):
        if node.op != "QuantizeLinear" or (bounds := _real_bounds(node)) is None:
            continue
        clamp = node.required(0).producer
        if clamp is not None and clamp.graph is graph and _is_idle(clamp, bounds):
            node.set_input(0, clamp.required(0))
            changed = True
    return changed


def _real_bounds(node: Node) -> tuple[float, float] | None:
    scale, zero = node.required(1).constant, node.input(2)
    if scale is None or scale.size != 1 or zero is None or zero.constant is None:
        return None
    kind = np.iinfo(node.output.dtype.numpy) if node.output.dtype.is_int else None
    if kind is None or zero.constant.size != 1:
        return None
    middle, step = int(zero.constant.item()), float(scale.item())
    return (kind.min - middle) * step, (kind.max - middle) * step


def _is_idle(clamp: Node, bounds: tuple[float, float]) -> bool:
    if clamp.op == "Relu":
        return bounds[0] >= 0
    if clamp.op != "Clip":
        return False
    low, high = clamp.input(1), clamp.input(2)
    return _reaches(low, bounds[0], -1) and _reaches(high, bounds[1], 1)


def _reaches(limit: Value | None, bound: float, sign: int) -> bool:
    """Whether a limit lies at or beyond the bound."""
    if limit is None:
        return True
    return limit.constant is not None and sign * (float(limit.constant.item()) - bound) >= 0

"""Volumes become pictures: convolutions over a volume, and what stands between them.

A value [N, C, D, H, W] is kept as its frames, [N * D, C, H, W]. A window over KD frames sees a
picture of KD * C channels, which `Frames` puts together, so that kernels for pictures do the rest:
blocked layouts, Winograd, epilogues. What has no rule here reads the volume itself again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tuili.ir import Graph, Node, TensorType, Value
from tuili.ops.contents import Contents, symbols_in
from tuili.ops.table import attr, find
from tuili.passes.fold import bound_symbols, give_way
from tuili.passes.making import Making, shaped
from tuili.passes.volume_windows import (
    Window,
    convolved,
    convolved_codes,
    is_convolution,
    is_quantized,
    is_transposed,
    pooled,
    summed,
    transposed,
    window_of,
)
from tuili.tensors import DType, Shape, numel

RANK = 5
_ELEMENTS = (DType.F32, DType.U8, DType.I8)


def volumes_to_frames(graph: Graph, contents: Contents, bound: set[str] | None = None) -> bool:
    """Rewrite every convolution over a volume with known weights, and the nodes around it."""
    bound = bound_symbols(graph) if bound is None else bound
    nested = [inner for node in graph.nodes for inner in node.graphs() if node.op != "Fused"]
    changed = [volumes_to_frames(inner, contents, bound) for inner in nested]
    return _Volumes(graph, contents, bound).run() or any(changed)


@dataclass(slots=True)
class _Volumes:
    graph: Graph
    contents: Contents
    bound: set[str]
    frames: dict[Value, Value] = field(default_factory=dict[Value, Value])
    replaced: list[Node] = field(default_factory=list[Node])

    def run(self) -> bool:
        """Rewrite in order, then give volumes back to whoever still reads one."""
        for node in list(self.graph.nodes):
            rule = RULES.get(node.op, _elementwise)
            if not self._is_volume(node.output if len(node.outputs) == 1 else None):
                continue
            made = rule(self, node)
            if made is not None:
                self.frames[node.output] = made
                self.replaced.append(node)
        gone = set(self.replaced)
        for node in self.replaced:
            if any(user not in gone for user, _ in node.output.uses):
                give_way(self.graph, node.output, self._volume(node))
        for node in reversed(self.replaced):
            self.graph.remove(node)
        return bool(gone)

    def make(self, node: Node) -> Making:
        """For nodes before this one."""
        return Making(self.graph, node, self.contents)

    def _is_volume(self, value: Value | None) -> bool:
        type_ = None if value is None else value.type
        if not isinstance(type_, TensorType) or type_.shape is None or type_.layout:
            return False
        named = symbols_in(type_.shape) <= self.bound
        whole = named and len(type_.shape) == RANK and type_.dtype in _ELEMENTS
        return whole and isinstance(type_.shape[1], int)

    def of(self, node: Node, slot: int = 0) -> Value | None:
        """The frames of an input of a node; made of the volume where there are none yet."""
        value = node.required(slot)
        if value in self.frames or not self._is_volume(value):
            return self.frames.get(value)
        m = self.make(node)
        batch, channels, depth, *space = value.shape
        turned = m("Transpose", value, perm=(0, 2, 1, 3, 4))
        self.frames[value] = shaped(m, turned, (batch * depth, channels, *space))
        return self.frames[value]

    def _volume(self, node: Node) -> Value:
        m = self.make(node)
        batch, channels, depth, *space = node.output.shape
        stacked = shaped(m, self.frames[node.output], (batch, depth, channels, *space))
        return m("Transpose", stacked, perm=(0, 2, 1, 3, 4))


Rule = Callable[[_Volumes, Node], Value | None]
Write = Callable[[Making, Value, Window], Value]


# -- windows -----------------------------------------------------------------------------------


def _convolution(fits: Callable[[Node], bool], write: Write) -> Rule:
    """The rule of a convolution, of numbers or of codes."""

    def rule(volumes: _Volumes, node: Node) -> Value | None:
        window = window_of(node, node.required(1).shape[2:]) if fits(node) else None
        x = None if window is None else volumes.of(node)
        return None if window is None or x is None else write(volumes.make(node), x, window)

    return rule


def _codes(volumes: _Volumes, node: Node) -> Value | None:
    """To or from codes of one scale."""
    x, scale = volumes.frames.get(node.required(0)), node.required(1)
    if x is None or numel(scale.shape) != 1:
        return None
    one = [None if each is None else _scalar(volumes, node, each) for each in node.inputs[1:]]
    return volumes.make(node)(node.op, x, *one, **node.attrs)


def _scalar(volumes: _Volumes, node: Node, value: Value) -> Value:
    return shaped(volumes.make(node), value, ())


def _conv_transpose(volumes: _Volumes, node: Node) -> Value | None:
    x = volumes.of(node) if is_transposed(node) else None
    return None if x is None else transposed(volumes.make(node), x)


def _pool(volumes: _Volumes, node: Node) -> Value | None:
    window = _known_window(volumes, node)
    if window is None or attr(node, "storage_order") or not window.is_inside_by(node):
        return None
    return pooled(volumes.make(node), volumes.frames[node.required(0)], window)


def _average(volumes: _Volumes, node: Node) -> Value | None:
    window = _known_window(volumes, node)
    if window is None or any(window.pads):
        return None
    return summed(volumes.make(node), volumes.frames[node.required(0)], window)


def _known_window(volumes: _Volumes, node: Node) -> Window | None:
    """Where the input is in frames already: a pool alone gains nothing."""
    if node.required(0) not in volumes.frames or attr(node, "ceil_mode"):
        return None
    return window_of(node, attr(node, "kernel_shape"))


def _global(volumes: _Volumes, node: Node) -> Value | None:
    """Over each frame, then over the frames; the result is a volume of one frame."""
    x = volumes.frames.get(node.required(0))
    if x is None:
        return None
    m = volumes.make(node)
    batch, channels, depth = node.required(0).shape[:3]
    each = shaped(m, m(node.op, x), (batch, depth, channels))
    op = "ReduceMean" if node.op == "GlobalAveragePool" else "ReduceMax"
    whole = m(op, each, m.dims((1,)), keepdims=0)
    return shaped(m, whole, (batch, channels, 1, 1))


# -- what works on elements --------------------------------------------------------------------


def _elementwise(volumes: _Volumes, node: Node) -> Value | None:
    row = find(node.op)
    if row is None or not row.elementwise or node.graphs():
        return None
    given = [value for value in node.inputs if value is not None]
    if not any(value in volumes.frames and _is_like(value, node.output) for value in given):
        return None
    m = volumes.make(node)
    if not all(_can_follow(volumes, value, node.output) for value in given):
        return None
    inputs = [None if each is None else _operand(volumes, m, each, node) for each in node.inputs]
    return m(node.op, *inputs, **node.attrs)


def _is_like(value: Value, y: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape == y.shape


def _can_follow(volumes: _Volumes, value: Value, y: Value) -> bool:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return False
    if value in volumes.frames and _is_like(value, y):
        return True
    if numel(value.shape) == 1:
        return True
    full = _five(value)
    return full[1] in (1, y.shape[1]) and full[0] in (1, y.shape[0]) and full[2:] == (1, 1, 1)


def _five(value: Value) -> Shape:
    return (1,) * (RANK - len(value.shape)) + tuple(value.shape)


def _operand(volumes: _Volumes, m: Making, value: Value, node: Node) -> Value:
    """An input beside frames: frames, one element, or one for each channel (of each volume)."""
    if _is_like(value, node.output):
        return volumes.frames[value]
    if numel(value.shape) == 1:
        return value if len(value.shape) < RANK else shaped(m, value, ())
    batch, channels = _five(value)[:2]
    if batch == 1:
        if value.constant is not None:
            return m.constant(value.constant.reshape(-1, 1, 1))
        return shaped(m, value, (1, channels, 1, 1))
    depth = node.output.shape[2]
    each = shaped(m, value, (batch, 1, channels))
    spread = m("Expand", each, m.dims((batch, depth, channels)))
    return shaped(m, spread, (batch * depth, channels, 1, 1))


def _concat(volumes: _Volumes, node: Node) -> Value | None:
    """Of channels."""
    if int(attr(node, "axis")) % RANK != 1:
        return None
    pieces = [volumes.frames.get(node.required(slot)) for slot in range(len(node.inputs))]
    known = [piece for piece in pieces if piece is not None]
    same = {(value.shape[0], *value.shape[2:]) for value in node.inputs if value is not None}
    if len(known) < len(pieces) or len(same) > 1:
        return None
    return volumes.make(node)("Concat", *known, axis=1)


RULES: dict[str, Rule] = {
    "Conv": _convolution(is_convolution, convolved),
    "QConv": _convolution(is_quantized, convolved_codes),
    "QuantizeLinear": _codes,
    "DequantizeLinear": _codes,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _average,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    "Concat": _concat,
}

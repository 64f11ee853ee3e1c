"""Windows over frames: a convolution or pool over a volume as ones over pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tuili.ir import Attr, Node, Value
from tuili.ops.table import attr, attributes
from tuili.ops.windows import defaults, resolve_pads
from tuili.passes.making import Making, shaped
from tuili.tensors import Array, DType, Shape

_PLANE = 3  # axes of a volume; the first is its depth
_SAME = ("SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True, slots=True)
class Window:
    """The part over the depth, and the attributes of the part over each picture."""

    counts: Shape  # volumes, frames in each
    taps: int
    stride: int
    dilation: int
    pads: tuple[int, int]
    plane: dict[str, Attr]

    @property
    def is_flat(self) -> bool:
        """Whether every frame is for itself."""
        return (self.taps, self.stride, self.pads) == (1, 1, (0, 0))

    def is_inside_by(self, node: Node) -> bool:
        """Whether a window that reaches over an end has the frame at that end among its own."""
        return not any(self.pads) or (self.dilation == 1 and max(self.pads) < self.taps)

    def every(self, m: Making, x: Value, fill: int = 0) -> Value:
        """The frames of each window side by side, beyond the ends full of `fill`."""
        if self.is_flat:
            return x
        return m("Frames", x, m.dims(self.counts), taps=self.taps, stride=self.stride,
                 dilation=self.dilation, pads=self.pads, fill=fill)  # fmt: skip

    def one(self, m: Making, x: Value, tap: int, *, clamp: bool = False) -> Value:
        """The frame of each window at one tap."""
        before, after = tap * self.dilation, (self.taps - 1 - tap) * self.dilation
        pads = (self.pads[0] - before, self.pads[1] - after)
        if self.stride == 1 and pads == (0, 0):
            return x
        return m("Frames", x, m.dims(self.counts), taps=1, stride=self.stride, pads=pads,
                 clamp=int(clamp))  # fmt: skip


def window_of(node: Node, taps: Shape) -> Window | None:
    """The window of a node over a volume; None where its padding follows from unknown sizes."""
    shape, given = node.required(0).shape, attributes(node)
    counts, sizes = (shape[0], shape[2]), shape[2:]
    known = all(isinstance(size, int) for size in sizes)
    if given["auto_pad"] in _SAME and not known:
        return None
    kernel = tuple(int(size) for size in taps)  # pyright: ignore[reportArgumentType]
    strides, dilations, pads = resolve_pads(sizes if known else (0,) * 3, kernel, given)  # pyright: ignore[reportArgumentType]
    plane: dict[str, Attr] = {
        "kernel_shape": kernel[1:],
        "strides": strides[1:],
        "dilations": dilations[1:],
        "pads": (*pads[1:_PLANE], *pads[_PLANE + 1 :]),
    }
    depth = pads[0], pads[_PLANE]
    return Window(counts, kernel[0], strides[0], dilations[0], depth, plane)


def _known_weights(node: Node) -> Array | None:
    weights, bias = node.required(1).constant, node.input(2)
    if weights is None or weights.ndim != _PLANE + 2 or "epilogue" in node.attrs:
        return None
    known = bias is None or bias.is_constant
    return weights if known and weights.size and node.required(1).dtype is DType.F32 else None


def _beside(weights: Array) -> Array:
    """The taps over the depth side by side, each with all channels, as `Frames` puts frames."""
    first, _, _, *plane = weights.shape
    return weights.swapaxes(1, 2).reshape(first, -1, *plane)


def is_convolution(node: Node) -> bool:
    """Whether a Conv over a volume has known weights."""
    return _known_weights(node) is not None


def convolved(m: Making, x: Value, window: Window) -> Value:
    """A convolution: of the frames together, of each channel, or a group's taps added up."""
    weights, bias, groups = _known_weights(m.node), m.node.input(2), attr(m.node, "group")
    assert weights is not None  # is_convolution
    if groups == 1:
        return m("Conv", window.every(m, x), _beside(weights), bias, **window.plane)
    if weights.shape[:2] == (groups, 1) and not window.is_flat:
        plane = {name: value for name, value in window.plane.items() if name != "kernel_shape"}
        return m("EachChannelOfFrames", x, weights, m.dims(window.counts), bias, **plane,
                 stride=window.stride, dilation=window.dilation,
                 depth_pads=window.pads)  # fmt: skip
    made: Value | None = None
    for tap in range(window.taps):
        side = np.ascontiguousarray(weights[:, :, tap])
        given = window.one(m, x, tap), side, bias if made is None else None
        one = m("Conv", *given, group=groups, **window.plane)
        made = one if made is None else m("Add", one, made)
    assert made is not None
    return made


def is_quantized(node: Node) -> bool:
    """Whether a QConv over a volume has known weights and a known code for zero."""
    weights, zero = node.required(1).constant, node.input(2)
    if weights is None or weights.ndim != _PLANE + 2 or not weights.size:
        return False
    return zero is None or (zero.constant is not None and zero.constant.size == 1)


def convolved_codes(m: Making, x: Value, window: Window) -> Value:
    """A convolution of codes; its sums must be of all taps, so that groups are put together too."""
    weights, zero, groups = m.node.required(1).constant, m.node.input(2), attr(m.node, "group")
    assert weights is not None  # is_quantized
    fill = 0 if zero is None or zero.constant is None else int(zero.constant.reshape(()))
    seen = window.every(m, x, fill)
    if groups > 1 and window.taps > 1:
        frames, channels, height, width = seen.shape
        split = (frames, window.taps, groups, channels // (window.taps * groups), height, width)
        apart = m("Transpose", shaped(m, seen, split), perm=(0, 2, 1, 3, 4, 5))
        seen = shaped(m, apart, seen.shape)
    return m("QConv", seen, _beside(weights), *m.node.inputs[2:], group=groups, **window.plane)


def is_transposed(node: Node) -> bool:
    """Whether every frame of a ConvTranspose over a volume comes from one frame alone."""
    weights = _known_weights(node)
    if weights is None or attr(node, "group") != 1 or attr(node, "output_shape"):
        return False
    if attr(node, "auto_pad") not in ("NOTSET", "VALID"):
        return False
    strides, dilations, pads, more = _transposition(node)
    apart = strides[0] == weights.shape[2] and dilations[0] == 1
    return apart and not pads[0] and not pads[_PLANE] and not more[0]


def _transposition(node: Node) -> tuple[tuple[int, ...], ...]:
    given = attributes(node)
    counts: dict[str, Any] = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
    return tuple(
        defaults(given[name], 2 * _PLANE if name == "pads" else _PLANE, default)
        for name, default in counts.items()
    )


def transposed(m: Making, x: Value) -> Value:
    """A transposed convolution: the frames that come of one are channels side by side first."""
    weights, bias = _known_weights(m.node), m.node.input(2)
    assert weights is not None  # is_transposed
    strides, dilations, pads, more = _transposition(m.node)
    outputs, depth, *plane = weights.shape[1:]
    if bias is not None and bias.constant is not None:
        bias = m.constant(np.tile(bias.constant, depth))
    attrs: dict[str, Attr] = {
        "kernel_shape": tuple(plane),
        "strides": strides[1:],
        "dilations": dilations[1:],
        "pads": (*pads[1:_PLANE], *pads[_PLANE + 1 :]),
        "output_padding": more[1:],
    }
    y = m("ConvTranspose", x, _beside(weights), bias, **attrs)
    frames, _, height, width = y.shape
    return shaped(m, y, (frames * depth, outputs, height, width))


def pooled(m: Making, x: Value, window: Window) -> Value:
    """The largest of each picture's windows, then among the frames."""
    each = m("MaxPool", x, **window.plane)
    seen = [window.one(m, each, tap, clamp=True) for tap in range(window.taps)]
    return seen[0] if len(seen) == 1 else m("Max", *seen)


def summed(m: Making, x: Value, window: Window) -> Value:
    """The mean of each picture's windows, then that of the frames."""
    counted = attr(m.node, "count_include_pad")
    each = m("AveragePool", x, count_include_pad=counted, **window.plane)
    total = window.one(m, each, 0)
    for tap in range(1, window.taps):
        total = m("Add", total, window.one(m, each, tap))
    return total if window.taps == 1 else m("Mul", total, np.float32(1 / window.taps))

"""Pads folding: a Pad with the neutral value becomes padding of the window operator behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuili.ir import Graph, Node
from tuili.ops.contents import Contents
from tuili.ops.table import attr

# The value that padding has inside each operator.
NEUTRAL = {"Conv": 0.0, "AveragePool": 0.0, "MaxPool": -np.inf}


def fold_pads(graph: Graph, contents: Contents) -> bool:
    """Let the window operators read what is padded; the Pad is dead when nothing else reads it."""
    changed = False
    for node in graph.nodes:
        for nested in node.graphs():
            changed |= fold_pads(nested, contents)
        pad = node.required(0).producer if node.op in NEUTRAL else None
        if pad is not None and pad.op == "Pad":
            changed |= _fold(node, pad, contents)
    return changed


def _fold(node: Node, pad: Node, contents: Contents) -> bool:
    added = _spatial_pads(pad, contents)
    explicit = attr(node, "auto_pad") in ("NOTSET", "VALID")
    if added is None or not explicit or not _has_value(pad, NEUTRAL[node.op]):
        return False
    own = attr(node, "pads") or (0,) * len(added)
    if node.op != "Conv" and attr(node, "ceil_mode"):
        return False
    if node.op == "AveragePool":
        # The added zeros count; zeros of its own that do not count cannot be told apart then.
        if any(own) and not attr(node, "count_include_pad"):
            return False
        node.attrs["count_include_pad"] = 1
    node.attrs.pop("auto_pad", None)
    node.attrs["pads"] = tuple(one + more for one, more in zip(own, added, strict=True))
    node.set_input(0, pad.required(0))
    return True


def _spatial_pads(pad: Node, contents: Contents) -> tuple[int, ...] | None:
    """The padding of the spatial axes, begins then ends; None when other axes are padded too."""
    pads, shape = contents.dims(pad.input(1)), pad.output.shape
    if attr(pad, "mode") != "constant" or pads is None or not _are_sizes(pads):
        return None
    rank = len(shape)
    axes = tuple(range(rank))
    if pad.input(3) is not None:
        given = contents.dims(pad.input(3))
        if given is None:
            return None
        axes = tuple(int(axis) % rank for axis in given if isinstance(axis, int))
    if len(pads) != 2 * len(axes):
        return None
    begins, ends = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begins[axis], ends[axis] = int(pads[place]), int(pads[len(axes) + place])  # pyright: ignore[reportArgumentType]
    if any((*begins[:2], *ends[:2])):
        return None
    return (*begins[2:], *ends[2:])


def _are_sizes(pads: Sequence[object]) -> bool:
    return all(isinstance(pad, int) and pad >= 0 for pad in pads)


def _has_value(pad: Node, neutral: float) -> bool:
    value = pad.input(2)
    if value is None:
        return neutral == 0
    return value.constant is not None and bool(np.all(value.constant == neutral))
